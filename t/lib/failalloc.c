/*
 * Want of memory, on demand: to be preloaded into nginx. While armed, allocations fail that this
 * project's module makes, itself or by calling nginx, ngx_lua or another library, and those of
 * OpenSSL, which nginx calls on the module's behalf; whose an allocation is, the stack tells. Lua
 * code arms it:
 *
 *     ffi.cdef "long failalloc(int how, long n);"
 *
 *     ffi.C.failalloc(0, 0)     none fails any more; how many have since it was armed
 *     ffi.C.failalloc(1, n)     the n-th fails
 *     ffi.C.failalloc(2, n)     the n-th fails, and all later ones but those for which the module
 *                               has given memory back meanwhile
 *     ffi.C.failalloc(3, n)     mmap of n bytes or more fails, whoever calls it (LuaJIT does)
 *     ffi.C.failalloc(4, 0)     none fails: those that the module makes itself are counted, as if
 *                               they had
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void  __libc_free(void *);

#define CALLER __builtin_return_address(0)

enum { OFF, ONCE, FROM, MAP, COUNT };

static int       how;
static long      left, failures;
static size_t    credit;        /* given back since the first failure */
static int       busy;          /* within this file */
static pid_t     armed_in;
static int       parts;
static struct {
    uintptr_t from, to;
} code[8];                      /* of the module and of OpenSSL */

static int find_code(struct dl_phdr_info *info, size_t size, void *found)
{
    Dl_info module;
    int     is_module = dladdr(dlsym(RTLD_DEFAULT, "ngx_http_lua_memcached_module"), &module)
                        && (uintptr_t) module.dli_fbase == info->dlpi_addr;

    (void) size;
    if (!is_module && !strstr(info->dlpi_name, "/libssl.") && !strstr(info->dlpi_name, "/libcrypto.")) {
        return 0;
    }
    for (int i = 0; i < info->dlpi_phnum && parts < 8; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && (part->p_flags & PF_X)) {
            code[parts].from = info->dlpi_addr + part->p_vaddr;
            code[parts++].to = info->dlpi_addr + part->p_vaddr + part->p_memsz;
        }
    }
    *(int *) found |= is_module;
    return 0;
}

long failalloc(int new_how, long n)
{
    void *stack[1];
    long  failed = failures;
    int   found = 0;

    busy = 1;
    backtrace(stack, 1);        /* the first time, it allocates */
    parts = 0;
    dl_iterate_phdr(find_code, &found);
    if (!found) {
        abort();                /* a test that tests nothing */
    }
    busy = 0;
    how = new_how;
    left = n;
    failures = 0;
    credit = 0;
    armed_in = getpid();
    return failed;
}

static int is_in_code(void *address)
{
    int found = 0;

    for (int i = 0; i < parts; i++) {
        found |= (uintptr_t) address >= code[i].from && (uintptr_t) address < code[i].to;
    }
    return found;
}

static int is_ours(void)
{
    void *stack[64];
    int   found = 0;

    busy = 1;
    int depth = backtrace(stack, 64);
    for (int i = 0; i < depth; i++) {
        found |= is_in_code(stack[i]);
    }
    busy = 0;
    return found;
}

static int is_armed(void)
{
    return (how == ONCE || how == FROM) && !busy && getpid() == armed_in && is_ours();
}

static int fails(size_t size, void *caller)
{
    if (how == COUNT) {
        failures += is_in_code(caller);
        return 0;
    }
    if (!is_armed() || (left > 0 && --left > 0)) {
        return 0;
    }
    if (how == ONCE) {
        how = OFF;
    } else if (failures > 0 && size <= credit) {
        credit -= size;
        return 0;
    }
    failures++;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return fails(size, CALLER) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails(count * size, CALLER) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    size_t had = memory ? malloc_usable_size(memory) : 0;

    if (size > had && fails(size - had, CALLER)) {
        return NULL;
    }
    return __libc_realloc(memory, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    if (fails(size, CALLER)) {
        return ENOMEM;
    }
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : ENOMEM;
}

void *memalign(size_t alignment, size_t size)
{
    return fails(size, CALLER) ? NULL : __libc_memalign(alignment, size);
}

void free(void *memory)
{
    if (memory && how == FROM && failures > 0 && is_armed()) {
        credit += malloc_usable_size(memory);
    }
    __libc_free(memory);
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (how == MAP && !busy && getpid() == armed_in && size >= (size_t) left && (flags & MAP_ANONYMOUS)) {
        failures++;
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return (void *) syscall(SYS_mmap, address, size, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t size, int protection, int flags, int fd, off_t offset)
    __attribute__((alias("mmap")));
