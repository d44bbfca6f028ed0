/*
 * elsewhere: preloaded into a process, it connects elsewhere than that wants to.
 *
 * The variable ELSEWHERE has pairs, separated by spaces: "10.0.1.1:11211=127.0.0.1:20001" for an address
 * of a connection, "[2001:db8::1]:80=127.0.0.1:20002" with IPv6, "cache.example=10.9.0.1,10.9.0.2" for a
 * name that is to be looked up. So tests use the addresses and names that a hash depends on, and servers on this
 * machine. What is not in the list is left alone.
 */

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Copies what the list has for a name; 0: nothing. */
static int look_up(const char *name, char *to, size_t room)
{
    const char *at = getenv("ELSEWHERE");
    size_t length = strlen(name), n;

    while (at != NULL && *at != '\0') {
        if (strncmp(at, name, length) == 0 && at[length] == '=') {
            at += length + 1;
            n = strcspn(at, " ");
            if (n >= room) {
                return 0;
            }
            memcpy(to, at, n);
            to[n] = '\0';
            return 1;
        }
        at = strchr(at, ' ');
        at = at == NULL ? NULL : at + 1;
    }
    return 0;
}

/* The place of an address in the list, as an IPv4 address. */
static int place_of(const char *host, int port, int in_brackets, struct sockaddr_in *to)
{
    char name[128], found[64], *colon;

    snprintf(name, sizeof name, in_brackets ? "[%s]:%d" : "%s:%d", host, port);
    if (!look_up(name, found, sizeof found)) {
        return 0;
    }
    colon = strrchr(found, ':');
    if (colon == NULL) {
        return 0;
    }
    *colon = '\0';
    to->sin_family = AF_INET;
    to->sin_port = htons((unsigned short) atoi(colon + 1));
    return inet_pton(AF_INET, found, &to->sin_addr) == 1;
}

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    static int (*next)(int, const struct sockaddr *, socklen_t);
    char host[INET6_ADDRSTRLEN];
    struct sockaddr_in to;

    if (next == NULL) {
        *(void **) &next = dlsym(RTLD_NEXT, "connect");
    }
    memset(&to, 0, sizeof to);
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *from = (const struct sockaddr_in *) address;
        inet_ntop(AF_INET, &from->sin_addr, host, sizeof host);
        if (place_of(host, ntohs(from->sin_port), 0, &to)) {
            return next(fd, (struct sockaddr *) &to, sizeof to);
        }
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *from = (const struct sockaddr_in6 *) address;
        struct sockaddr_in6 mapped = *from;
        inet_ntop(AF_INET6, &from->sin6_addr, host, sizeof host);
        if (place_of(host, ntohs(from->sin6_port), 1, &to)) {
            /* such a socket reaches IPv4 by ::ffff:a.b.c.d */
            memset(&mapped.sin6_addr, 0, 10);
            memset(&mapped.sin6_addr.s6_addr[10], 0xff, 2);
            memcpy(&mapped.sin6_addr.s6_addr[12], &to.sin_addr, 4);
            mapped.sin6_port = to.sin_port;
            return next(fd, (struct sockaddr *) &mapped, sizeof mapped);
        }
    }
    return next(fd, address, length);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
    static int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    char found[64], *at, *address;
    int failed;

    if (next == NULL) {
        *(void **) &next = dlsym(RTLD_NEXT, "getaddrinfo");
    }
    if (name == NULL || !look_up(name, found, sizeof found)) {
        return next(name, service, hints, result);
    }
    for (at = found; (address = strsep(&at, ",")) != NULL; ) {
        failed = next(address, service, hints, result);
        if (failed) {
            return failed;
        }
        while (*result != NULL) {
            result = &(*result)->ai_next;
        }
    }
    return 0;
}
