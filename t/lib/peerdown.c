/*
 * peerdown: what else a server in nginx's own list may be made, while nginx runs.
 *
 *     ffi.C.peerdown("upstream", "127.0.0.1:11211", 1)    -- marked as down
 *     ffi.C.peerpast("upstream", "127.0.0.1:11211", 61)   -- its failures are 61 seconds older
 *
 * Both return how many servers were found. The first does what set_peer_down() of lua-upstream-nginx-module
 * does, which Debian has no package of. By the second, tests need not wait for fail_timeout.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

/* A shell that starts nginx, as that of scripts/harden, has none of these, and calls nothing here. */
#pragma weak ngx_cycle
#pragma weak ngx_http_module
#pragma weak ngx_http_upstream_module

int peerdown(const char *upstream, const char *server, int down);
int peerpast(const char *upstream, const char *server, int seconds);

typedef void (*change_pt)(ngx_http_upstream_rr_peer_t *peer, int value);

static int change_all(const char *upstream, const char *server, change_pt change, int value)
{
    ngx_uint_t i, found = 0;
    ngx_http_upstream_rr_peer_t *peer;
    ngx_http_upstream_rr_peers_t *peers;
    ngx_http_upstream_srv_conf_t **blocks;
    ngx_http_upstream_main_conf_t *conf = ngx_http_cycle_get_module_main_conf(ngx_cycle, ngx_http_upstream_module);

    blocks = conf->upstreams.elts;
    for (i = 0; i < conf->upstreams.nelts; i++) {
        if (blocks[i]->host.len != strlen(upstream)
            || ngx_strncmp(blocks[i]->host.data, upstream, blocks[i]->host.len) != 0)
        {
            continue;
        }
        peers = blocks[i]->peer.data;
        ngx_http_upstream_rr_peers_wlock(peers);
        for (peer = peers->peer; peer != NULL; peer = peer->next) {
            if (peer->name.len == strlen(server) && ngx_strncmp(peer->name.data, server, peer->name.len) == 0) {
                change(peer, value);
                found++;
            }
        }
        ngx_http_upstream_rr_peers_unlock(peers);
    }
    return found;
}

static void set_down(ngx_http_upstream_rr_peer_t *peer, int value)
{
    peer->down = value;
}

static void make_older(ngx_http_upstream_rr_peer_t *peer, int value)
{
    peer->accessed -= value;
    peer->checked -= value;
}

int peerdown(const char *upstream, const char *server, int down)
{
    return change_all(upstream, server, set_down, down);
}

int peerpast(const char *upstream, const char *server, int seconds)
{
    return change_all(upstream, server, make_older, seconds);
}
