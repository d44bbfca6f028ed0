/*
 * latewrite: notices what is sent of operations that are over.
 *
 * Whoever uses memcached in nginx gives each operation a serial, a number, and marks what it sends: its
 * keys or values have "Lw0000000123w" in them, values again and again, so that each piece of them has
 * it. As soon as Lua knows the operation's result it says so:
 *
 *     ffi.C.latewrite_over(123)
 *
 * Preloaded into nginx (LD_PRELOAD), this library looks at all that is sent on the stream sockets that
 * nginx opens with connect(). A mark of a serial that is over is a line in the file that LATEWRITE_FILE
 * names, once for each call that sent such marks; nginx goes on. Without that variable it does nothing.
 *
 * latewrite_sent(123) tells whether a mark of this serial was sent at all.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FD  65536
#define SERIALS (1u << 26)
#define DIGITS  10
#define MARK    (2 + DIGITS + 1)

enum { SENT = 1, OVER = 2 };

struct socket_state {
    int    tracked;
    size_t kept;           /* the last bytes, which may be the beginning of a mark */
    char   last[MARK - 1];
};

static struct socket_state *sockets;
static uint8_t             *serials;
static int                  report = -1;

#define REAL(name) static __typeof__(name) *real_##name
REAL(connect);
REAL(close);
REAL(send);
REAL(write);
REAL(writev);
REAL(sendmsg);

void latewrite_over(unsigned int serial);
int  latewrite_sent(unsigned int serial);

__attribute__((constructor)) static void
begin(void)
{
    const char *file = getenv("LATEWRITE_FILE");

#define FIND(name) real_##name = (__typeof__(name) *) dlsym(RTLD_NEXT, #name)
    FIND(connect);
    FIND(close);
    FIND(send);
    FIND(write);
    FIND(writev);
    FIND(sendmsg);
    if (file == NULL) {
        return;
    }
    /* for the workers, too, which may not write where the master may */
    report = open(file, O_WRONLY | O_CREAT | O_APPEND, 0666);
    sockets = calloc(MAX_FD, sizeof(struct socket_state));
    serials = calloc(SERIALS, 1);
    if (report == -1 || sockets == NULL || serials == NULL) {
        fprintf(stderr, "latewrite: cannot begin\n");
        _exit(1);
    }
}

void
latewrite_over(unsigned int serial)
{
    if (serials != NULL && serial < SERIALS) {
        serials[serial] |= OVER;
    }
}

int
latewrite_sent(unsigned int serial)
{
    return serials != NULL && serial < SERIALS && (serials[serial] & SENT) != 0;
}

static struct socket_state *
state_of(int fd)
{
    struct socket_state *s = sockets != NULL && fd >= 0 && fd < MAX_FD ? &sockets[fd] : NULL;

    return s != NULL && s->tracked ? s : NULL;
}

/* The serial of the mark at `p`; -1: there is none. */
static long
serial_at(const char *p)
{
    int  i;
    long serial = 0;

    if (p[0] != 'L' || p[1] != 'w' || p[MARK - 1] != 'w') {
        return -1;
    }
    for (i = 2; i < MARK - 1; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return -1;
        }
        serial = serial * 10 + (p[i] - '0');
    }
    return serial;
}

/* Notes the marks that end behind the first `old` of these bytes. The serial of one that is over. */
static long
marks(const char *bytes, size_t len, size_t old)
{
    const char *p = bytes, *end = bytes + len;
    long        serial, late = -1;

    while (end - p >= MARK && (p = memchr(p, 'L', end - p - (MARK - 1))) != NULL) {
        serial = serial_at(p);
        if (serial < 0 || serial >= (long) SERIALS || (size_t) (p - bytes) + MARK <= old) {
            p++;
            continue;
        }
        if (serials[serial] & OVER) {
            late = serial;
        }
        serials[serial] |= SENT;
        p += MARK;
    }
    return late;
}

static void
tell(int fd, const char *call, long serial, size_t n)
{
    char line[128];
    int  len = snprintf(line, sizeof(line), "%s() of %zu bytes on socket %d had some of operation %ld\n",
                        call, n, fd, serial);

    if (real_write(report, line, len) != len) {
        fprintf(stderr, "latewrite: %s", line);
    }
}

/* So many bytes of the vectors were sent. */
static void
look(int fd, struct socket_state *s, const char *call, const struct iovec *vectors, int count, size_t n)
{
    int    i;
    char   joint[2 * (MARK - 1)];
    long   late = -1, found;
    size_t len, part, old, left = n;

    for (i = 0; i < count && left > 0; i++) {
        len = vectors[i].iov_len < left ? vectors[i].iov_len : left;
        left -= len;
        /* a mark may begin in what was sent before */
        part = len < MARK - 1 ? len : MARK - 1;
        memcpy(joint, s->last, s->kept);
        memcpy(joint + s->kept, vectors[i].iov_base, part);
        found = marks(joint, s->kept + part, s->kept);
        late = found >= 0 ? found : late;
        found = marks(vectors[i].iov_base, len, 0);
        late = found >= 0 ? found : late;
        if (len >= MARK - 1) {
            memcpy(s->last, (char *) vectors[i].iov_base + len - (MARK - 1), MARK - 1);
            s->kept = MARK - 1;
        } else {
            part = s->kept + len;
            old = part > MARK - 1 ? part - (MARK - 1) : 0;
            memcpy(s->last, joint + old, part - old);
            s->kept = part - old;
        }
    }
    if (late >= 0) {
        tell(fd, call, late, n);
    }
}

int
connect(int fd, const struct sockaddr *address, socklen_t len)
{
    int       type = 0;
    socklen_t size = sizeof(type);

    if (sockets != NULL && fd >= 0 && fd < MAX_FD
        && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM)
    {
        sockets[fd].tracked = 1;
        sockets[fd].kept = 0;
    }
    return real_connect(fd, address, len);
}

int
close(int fd)
{
    struct socket_state *s = state_of(fd);

    if (s != NULL) {
        s->tracked = 0;
    }
    return real_close(fd);
}

static ssize_t
sent(int fd, const char *call, const void *buf, ssize_t n)
{
    struct iovec         vector = { (void *) buf, n > 0 ? (size_t) n : 0 };
    struct socket_state *s = state_of(fd);

    if (s != NULL && n > 0) {
        look(fd, s, call, &vector, 1, n);
    }
    return n;
}

ssize_t
send(int fd, const void *buf, size_t len, int flags)
{
    return sent(fd, "send", buf, real_send(fd, buf, len, flags));
}

ssize_t
write(int fd, const void *buf, size_t len)
{
    return sent(fd, "write", buf, real_write(fd, buf, len));
}

ssize_t
writev(int fd, const struct iovec *vectors, int count)
{
    ssize_t              n = real_writev(fd, vectors, count);
    struct socket_state *s = state_of(fd);

    if (s != NULL && n > 0) {
        look(fd, s, "writev", vectors, count, n);
    }
    return n;
}

ssize_t
sendmsg(int fd, const struct msghdr *message, int flags)
{
    ssize_t              n = real_sendmsg(fd, message, flags);
    struct socket_state *s = state_of(fd);

    if (s != NULL && n > 0) {
        look(fd, s, "sendmsg", message->msg_iov, message->msg_iovlen, n);
    }
    return n;
}
