/*
 * onebyte: one byte per turn of the event loop.
 *
 * Preloaded into nginx (LD_PRELOAD), this library shortens what is sent and received on the stream
 * sockets that nginx opens with connect(): per socket and direction one byte for each return of
 * epoll_wait(), and every other attempt is refused with EAGAIN. Once LONG_RUN bytes have gone in
 * a direction, one piece in four is a larger one, or large values would take minutes.
 *
 * nginx asks for edge-triggered events: the kernel would not report again what was left in a socket.
 * Therefore the registrations are remembered (epoll_ctl), and before the next epoll_wait() each
 * socket that was cut short is registered again as it was, whereupon the kernel looks at it anew.
 * What is reported is always the socket's true state.
 *
 * ONEBYTE_OFF in the environment turns it off. ONEBYTE_COUNTS names a file to which each process
 * that did anything appends at its end: bytes that went alone, larger pieces, refusals.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FD   65536
#define LONG_RUN 4096

enum { IN, OUT };

struct direction {
    unsigned long turn;  /* of the last attempt that was let through or refused */
    int           refuse; /* the next turn's first attempt */
    size_t        run;    /* bytes until now */
};

struct socket_state {
    int                tracked;
    int                cut; /* to be registered again */
    int                epoll; /* -1 unless registered */
    struct epoll_event event;
    struct direction   way[2];
};

/* For who runs inside nginx and wants to know (see t/lib/testkit.lua). */
int onebyte_is_on;

static struct socket_state *sockets;
static int                  cut_fds[MAX_FD];
static int                  cut_count;
static unsigned long        turn = 1;
static unsigned int         dice = 12345;
static unsigned long        alone, pieces, refusals;
static char                 counts[4096];

#define REAL(name) static __typeof__(name) *real_##name
REAL(connect);
REAL(close);
REAL(epoll_ctl);
REAL(epoll_wait);
REAL(recv);
REAL(read);
REAL(readv);
REAL(recvmsg);
REAL(send);
REAL(write);
REAL(writev);
REAL(sendmsg);
REAL(sendfile);

__attribute__((constructor)) static void
begin(void)
{
#define FIND(name) real_##name = (__typeof__(name) *) dlsym(RTLD_NEXT, #name)
    FIND(connect);
    FIND(close);
    FIND(epoll_ctl);
    FIND(epoll_wait);
    FIND(recv);
    FIND(read);
    FIND(readv);
    FIND(recvmsg);
    FIND(send);
    FIND(write);
    FIND(writev);
    FIND(sendmsg);
    FIND(sendfile);
    if (getenv("ONEBYTE_OFF") == NULL) {
        sockets = calloc(MAX_FD, sizeof(struct socket_state));
        onebyte_is_on = sockets != NULL;
    }
    /* nginx replaces the environment later */
    if (getenv("ONEBYTE_COUNTS") != NULL) {
        snprintf(counts, sizeof(counts), "%s", getenv("ONEBYTE_COUNTS"));
    }
}

__attribute__((destructor)) static void
end(void)
{
    char line[128];
    int  fd, len;

    if (counts[0] == '\0' || alone + pieces + refusals == 0) {
        return;
    }
    fd = open(counts, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd == -1) {
        return;
    }
    len = snprintf(line, sizeof(line), "%lu %lu %lu\n", alone, pieces, refusals);
    if (real_write(fd, line, len) != len) {
        fprintf(stderr, "onebyte: cannot write %s\n", counts);
    }
    real_close(fd);
}

static struct socket_state *
state_of(int fd)
{
    return sockets != NULL && fd >= 0 && fd < MAX_FD ? &sockets[fd] : NULL;
}

static void
report_again(int fd, struct socket_state *s)
{
    if (!s->cut) {
        s->cut = 1;
        cut_fds[cut_count++] = fd;
    }
}

/*
 * How much of `len` bytes an attempt may move: len if the socket is none of ours, 0 if it is to be
 * refused with EAGAIN.
 */
static size_t
allowed(int fd, int way, size_t len)
{
    size_t               piece;
    struct direction    *d;
    struct socket_state *s = state_of(fd);

    if (s == NULL || !s->tracked || len == 0) {
        return len;
    }
    report_again(fd, s);
    d = &s->way[way];
    if (d->turn == turn || d->refuse) {
        d->turn = turn;
        d->refuse = 0;
        refusals++;
        return 0;
    }
    d->turn = turn;
    piece = 1;
    if (d->run >= LONG_RUN) {
        dice = dice * 1103515245 + 12345;
        if ((dice >> 16) % 4 == 0) {
            piece = d->run / 8;
        }
    }
    return piece < len ? piece : len;
}

/* An attempt was let through and moved `n` bytes (or failed). */
static ssize_t
moved(int fd, int way, ssize_t n)
{
    struct socket_state *s = state_of(fd);

    if (s == NULL || !s->tracked || n <= 0) {
        return n;
    }
    s->way[way].refuse = 1;
    s->way[way].run += n;
    if (n == 1) {
        alone++;
    } else {
        pieces++;
    }
    return n;
}

static ssize_t
refused(void)
{
    errno = EAGAIN;
    return -1;
}

int
connect(int fd, const struct sockaddr *address, socklen_t len)
{
    int                  type = 0;
    socklen_t            size = sizeof(type);
    struct socket_state *s = state_of(fd);

    if (s != NULL && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0
        && type == SOCK_STREAM)
    {
        s->tracked = 1;
        memset(s->way, 0, sizeof(s->way));
    }
    return real_connect(fd, address, len);
}

int
close(int fd)
{
    struct socket_state *s = state_of(fd);

    if (s != NULL) {
        s->tracked = 0;
        s->epoll = -1;
    }
    return real_close(fd);
}

int
epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
    struct socket_state *s = state_of(fd);

    if (s != NULL) {
        s->epoll = op == EPOLL_CTL_DEL ? -1 : epoll;
        if (op != EPOLL_CTL_DEL) {
            s->event = *event;
        }
    }
    return real_epoll_ctl(epoll, op, fd, event);
}

int
epoll_wait(int epoll, struct epoll_event *events, int max, int timeout)
{
    int                  i, fd, saved = errno, kept = 0;
    struct socket_state *s;

    for (i = 0; i < cut_count; i++) {
        fd = cut_fds[i];
        s = &sockets[fd];
        if (s->tracked && s->epoll != -1 && s->epoll != epoll) {
            cut_fds[kept++] = fd;
            continue;
        }
        s->cut = 0;
        if (s->tracked && s->epoll == epoll) {
            (void) real_epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &s->event);
        }
    }
    cut_count = kept;
    turn++;
    errno = saved;
    return real_epoll_wait(epoll, events, max, timeout);
}

ssize_t
recv(int fd, void *buf, size_t len, int flags)
{
    size_t n;

    if (flags & MSG_PEEK) {
        return real_recv(fd, buf, len, flags);
    }
    n = allowed(fd, IN, len);
    return n == 0 && len != 0 ? refused() : moved(fd, IN, real_recv(fd, buf, n, flags));
}

ssize_t
read(int fd, void *buf, size_t len)
{
    size_t n = allowed(fd, IN, len);

    return n == 0 && len != 0 ? refused() : moved(fd, IN, real_read(fd, buf, n));
}

ssize_t
send(int fd, const void *buf, size_t len, int flags)
{
    size_t n = allowed(fd, OUT, len);

    return n == 0 && len != 0 ? refused() : moved(fd, OUT, real_send(fd, buf, n, flags));
}

ssize_t
write(int fd, const void *buf, size_t len)
{
    size_t n = allowed(fd, OUT, len);

    return n == 0 && len != 0 ? refused() : moved(fd, OUT, real_write(fd, buf, n));
}

ssize_t
sendfile(int out, int in, off_t *offset, size_t len)
{
    size_t n = allowed(out, OUT, len);

    return n == 0 && len != 0 ? refused() : moved(out, OUT, real_sendfile(out, in, offset, n));
}

/*
 * Copies as many of the vectors as hold `max` bytes, the last one shortened, and returns their
 * number; 0 if nothing has to be shortened.
 */
#define MAX_VECTORS 64

static int
shorten(struct iovec *to, const struct iovec *from, int count, size_t max)
{
    int i;

    for (i = 0; i < count && i < MAX_VECTORS; i++) {
        to[i] = from[i];
        if (to[i].iov_len >= max) {
            to[i].iov_len = max;
            return i + 1;
        }
        max -= to[i].iov_len;
    }
    return i;
}

static size_t
total(const struct iovec *vectors, int count)
{
    int    i;
    size_t sum = 0;

    for (i = 0; i < count; i++) {
        sum += vectors[i].iov_len;
    }
    return sum;
}

ssize_t
readv(int fd, const struct iovec *vectors, int count)
{
    struct iovec less[MAX_VECTORS];
    size_t       len = total(vectors, count), n = allowed(fd, IN, len);

    if (n == len) {
        return moved(fd, IN, real_readv(fd, vectors, count));
    }
    return n == 0 ? refused()
                  : moved(fd, IN, real_readv(fd, less, shorten(less, vectors, count, n)));
}

ssize_t
writev(int fd, const struct iovec *vectors, int count)
{
    struct iovec less[MAX_VECTORS];
    size_t       len = total(vectors, count), n = allowed(fd, OUT, len);

    if (n == len) {
        return moved(fd, OUT, real_writev(fd, vectors, count));
    }
    return n == 0 ? refused()
                  : moved(fd, OUT, real_writev(fd, less, shorten(less, vectors, count, n)));
}

ssize_t
recvmsg(int fd, struct msghdr *message, int flags)
{
    ssize_t       got;
    struct iovec  less[MAX_VECTORS], *vectors = message->msg_iov;
    size_t        count = message->msg_iovlen, len = total(vectors, count), n;

    n = flags & MSG_PEEK ? len : allowed(fd, IN, len);
    if (n == len) {
        got = real_recvmsg(fd, message, flags);
        return flags & MSG_PEEK ? got : moved(fd, IN, got);
    }
    if (n == 0) {
        return refused();
    }
    message->msg_iovlen = shorten(less, vectors, count, n);
    message->msg_iov = less;
    got = real_recvmsg(fd, message, flags);
    message->msg_iov = vectors;
    message->msg_iovlen = count;
    return moved(fd, IN, got);
}

ssize_t
sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct iovec  less[MAX_VECTORS];
    struct msghdr part = *message;
    size_t        len = total(message->msg_iov, message->msg_iovlen), n = allowed(fd, OUT, len);

    if (n == 0 && len != 0) {
        return refused();
    }
    if (n != len) {
        part.msg_iovlen = shorten(less, message->msg_iov, message->msg_iovlen, n);
        part.msg_iov = less;
    }
    return moved(fd, OUT, real_sendmsg(fd, &part, flags));
}
