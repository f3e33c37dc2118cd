/* A collector for the ranges of ITT (Intel Instrumentation and Tracing Technology), in place of the one in VTune.
 *
 * torch, oneDNN and IPEX each contain ITT's static part. On its first call a static part loads the library that
 * INTEL_LIBITTNOTIFY64 names, and passes its table of function pointers to __itt_api_init(). Until runner_itt_start()
 * this library sets the pointers to what they are without a collector: a process that is being timed runs exactly the
 * code that it would run without this library. Between start and stop every range is recorded in a buffer of its thread.
 *
 * Memory comes from mmap(2) only and files are written with write(2): the allocator under test is never called.
 *
 * ABI: ittnotify_config.h and ittnotify_static.c of intel/ittapi. Only the leading members of its structures are
 * declared, because all versions of the static part share them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* ---- ITT's own structures ---- */

typedef struct { unsigned long long d1, d2, d3; } itt_id;

typedef struct itt_domain {
    volatile int flags; /* 0 switches the domain off */
    const char *name;
    void *name_wide;
    int extra1; /* ours: index into g_domains */
    void *extra2;
    struct itt_domain *next;
} itt_domain;

typedef struct itt_string {
    const char *text;
    void *text_wide;
    int extra1; /* ours: index into g_names */
    void *extra2;
    struct itt_string *next;
} itt_string;

typedef struct {
    const char *name;
    void **pointer;
    void *init;
    void *null; /* the pointer's value without a collector */
    int group;
} itt_api_info;

typedef struct itt_global {
    unsigned char magic[8];
    unsigned long version_major, version_minor, version_build;
    volatile long api_initialized, mutex_initialized, atomic_counter;
    pthread_mutex_t mutex;
    void *library;
    void *error_handler;
    const char **dll_path;
    itt_api_info *api;
    struct itt_global *next;
    void *threads;
    itt_domain *domains;
    itt_string *strings;
} itt_global;

/* ---- events ---- */

enum { BEGIN = 1, END = 2 };

typedef struct { /* 16 bytes; runner/capture/itt.py reads this layout */
    uint64_t ns; /* CLOCK_MONOTONIC */
    uint32_t name;
    uint8_t kind;
    uint8_t domain;
    uint16_t unused;
} event;

#define CHUNK_EVENTS (1u << 13)

typedef struct chunk {
    struct chunk *next;
    uint32_t used;
    event events[CHUNK_EVENTS];
} chunk;

typedef struct thread_buffer {
    struct thread_buffer *next;
    int32_t tid;
    char name[32];
    chunk *first, *last;
    uint64_t dropped;
    uint32_t unrecorded; /* open ranges whose begin was dropped; their ends are dropped as well */
} thread_buffer;

#define MAX_DOMAINS 64
#define MAX_GLOBALS 16
#define BUCKETS 4096

typedef struct node {
    struct node *next;
    uint32_t hash;
    itt_string handle;
} node;

static _Atomic(thread_buffer *) g_threads;
/* initial-exec: the other TLS models would allocate a thread's copy through malloc */
static __thread thread_buffer *t_buffer __attribute__((tls_model("initial-exec")));
static atomic_int g_active;
static _Atomic uint64_t g_lost; /* ranges without a buffer or a handle to record them with */

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static itt_global *g_globals[MAX_GLOBALS];
static int g_global_count;
static itt_domain *g_domains[MAX_DOMAINS];
static int g_domain_count;
static _Atomic(node *) g_buckets[BUCKETS];
static const char **g_names;
static uint32_t g_name_count, g_name_capacity;
static char *g_arena;
static size_t g_arena_left;

static void *map(size_t bytes) {
    /* populated, so that recording a range causes no page fault */
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void *arena(size_t bytes) { /* the caller holds g_lock; the memory is never freed */
    bytes = (bytes + 15) & ~(size_t)15;
    if (bytes > 1u << 20) return map(bytes);
    if (g_arena_left < bytes) {
        g_arena = map(1u << 20);
        g_arena_left = g_arena ? 1u << 20 : 0;
        if (!g_arena) return NULL;
    }
    void *p = g_arena;
    g_arena += bytes;
    g_arena_left -= bytes;
    return p;
}

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static thread_buffer *buffer(void) {
    if (__builtin_expect(t_buffer != NULL, 1)) return t_buffer;
    thread_buffer *b = map(sizeof *b);
    chunk *c = b ? map(sizeof *c) : NULL;
    if (!c) return NULL;
    b->tid = (int32_t)syscall(SYS_gettid);
    pthread_getname_np(pthread_self(), b->name, sizeof b->name);
    b->first = b->last = c;
    b->next = atomic_load(&g_threads);
    while (!atomic_compare_exchange_weak(&g_threads, &b->next, b)) {}
    return t_buffer = b;
}

/* Returns 1 if the event was recorded, 0 if there was no memory for it. */
static inline int record(thread_buffer *b, uint8_t kind, uint32_t name, int domain, uint64_t ns) {
    chunk *c = b->last;
    if (__builtin_expect(c->used == CHUNK_EVENTS, 0)) {
        chunk *fresh = map(sizeof *fresh);
        if (!fresh) {
            b->dropped++;
            return 0;
        }
        c->next = fresh;
        b->last = c = fresh;
    }
    event *e = &c->events[c->used++];
    e->ns = ns;
    e->name = name;
    e->kind = kind;
    e->domain = (uint8_t)domain;
    return 1;
}

/* ---- the functions that static parts call ---- */

static itt_domain *domain_create(const char *name) {
    if (!name) return NULL;
    pthread_mutex_lock(&g_lock);
    itt_domain *found = NULL;
    for (int i = 0; i < g_domain_count; i++)
        if (!strcmp(g_domains[i]->name, name)) found = g_domains[i];
    if (!found && g_domain_count < MAX_DOMAINS) {
        size_t bytes = strlen(name) + 1;
        itt_domain *d = arena(sizeof *d);
        char *copy = arena(bytes);
        if (d && copy) {
            memset(d, 0, sizeof *d);
            d->name = memcpy(copy, name, bytes);
            d->extra1 = g_domain_count;
            d->flags = 1;
            g_domains[g_domain_count++] = found = d;
        }
    }
    pthread_mutex_unlock(&g_lock);
    return found;
}

static int keep_name(const char *text) { /* the caller holds g_lock; returns the index, or -1 */
    if (g_name_count == g_name_capacity) {
        uint32_t capacity = g_name_capacity ? g_name_capacity * 2 : 4096;
        const char **grown = map(capacity * sizeof *grown);
        if (!grown) return -1;
        if (g_name_count) {
            memcpy(grown, g_names, g_name_count * sizeof *grown);
            munmap(g_names, g_name_capacity * sizeof *g_names);
        }
        g_names = grown;
        g_name_capacity = capacity;
    }
    g_names[g_name_count] = text;
    return (int)g_name_count++;
}

static itt_string *string_handle_create(const char *text) {
    if (!text) return NULL;
    uint32_t hash = 2166136261u; /* FNV-1a */
    size_t bytes = 0;
    for (; text[bytes]; bytes++) hash = (hash ^ (unsigned char)text[bytes]) * 16777619u;
    bytes++;
    /* The lookup takes no lock, because torch asks for a handle at every range. */
    _Atomic(node *) *bucket = &g_buckets[hash % BUCKETS];
    for (node *n = atomic_load_explicit(bucket, memory_order_acquire); n; n = n->next)
        if (n->hash == hash && !strcmp(n->handle.text, text)) return &n->handle;
    pthread_mutex_lock(&g_lock);
    node *n = atomic_load(bucket);
    while (n && (n->hash != hash || strcmp(n->handle.text, text))) n = n->next;
    if (!n) {
        node *fresh = arena(sizeof *fresh);
        char *copy = arena(bytes);
        int index = fresh && copy ? keep_name(memcpy(copy, text, bytes)) : -1;
        if (index >= 0) {
            memset(fresh, 0, sizeof *fresh);
            fresh->hash = hash;
            fresh->handle.text = copy;
            fresh->handle.extra1 = index;
            fresh->next = atomic_load(bucket);
            atomic_store_explicit(bucket, fresh, memory_order_release);
            n = fresh;
        }
    }
    pthread_mutex_unlock(&g_lock);
    if (!n) atomic_fetch_add(&g_lost, 1);
    return n ? &n->handle : NULL;
}

static void task_begin(const itt_domain *domain, itt_id id, itt_id parent, itt_string *name) {
    (void)id;
    (void)parent;
    if (!domain || !atomic_load_explicit(&g_active, memory_order_relaxed)) return;
    thread_buffer *b = buffer();
    if (!b)
        atomic_fetch_add(&g_lost, 1);
    else if (b->unrecorded || !name || !record(b, BEGIN, (uint32_t)name->extra1, domain->extra1, now_ns()))
        b->unrecorded++;
}

static void task_end(const itt_domain *domain) {
    uint64_t ns = now_ns();
    if (!domain || !atomic_load_explicit(&g_active, memory_order_relaxed)) return;
    thread_buffer *b = buffer();
    if (!b) return;
    if (b->unrecorded)
        b->unrecorded--;
    else
        record(b, END, 0, domain->extra1, ns);
}

static const struct {
    const char *name;
    void *function;
    int always; /* also before the start: handles that are made then must be ours, too */
} g_functions[] = {
    {"__itt_domain_create", domain_create, 1},
    {"__itt_domain_createA", domain_create, 1},
    {"__itt_string_handle_create", string_handle_create, 1},
    {"__itt_string_handle_createA", string_handle_create, 1},
    {"__itt_task_begin", task_begin, 0},
    {"__itt_task_end", task_end, 0},
};

static void connect_api(itt_global *global) { /* the caller holds g_lock */
    for (int i = 0; global->api[i].name; i++) {
        itt_api_info *api = &global->api[i];
        void *function = api->null;
        for (size_t k = 0; k < sizeof g_functions / sizeof *g_functions; k++)
            if (!strcmp(g_functions[k].name, api->name) && (g_functions[k].always || atomic_load(&g_active)))
                function = g_functions[k].function;
        *api->pointer = function;
    }
}

EXPORT void __itt_api_init(itt_global *global, int groups) {
    (void)groups;
    if (!global) return;
    pthread_mutex_lock(&g_lock);
    if (g_global_count < MAX_GLOBALS) {
        g_globals[g_global_count++] = global;
        connect_api(global);
    }
    pthread_mutex_unlock(&g_lock);
    /* Handles that this static part made before it loaded this library get our numbers. */
    for (itt_domain *d = global->domains; d; d = d->next) {
        itt_domain *ours = d->name ? domain_create(d->name) : NULL;
        if (ours) d->extra1 = ours->extra1;
    }
    for (itt_string *s = global->strings; s; s = s->next) {
        itt_string *ours = s->text ? string_handle_create(s->text) : NULL;
        if (ours) s->extra1 = ours->extra1;
    }
}

/* ---- what the worker calls ---- */

static void switch_to(int active) {
    pthread_mutex_lock(&g_lock);
    atomic_store(&g_active, active);
    for (int i = 0; i < g_global_count; i++) connect_api(g_globals[i]);
    pthread_mutex_unlock(&g_lock);
}

EXPORT void runner_itt_start(void) { switch_to(1); }
EXPORT void runner_itt_stop(void) { switch_to(0); }

/* Returns how many static parts (torch's, IPEX's) are connected: with 0, nothing can be recorded. */
EXPORT int runner_itt_connected(void) { return g_global_count; }

static int put(int file, const void *data, size_t bytes) {
    const char *p = data;
    while (bytes) {
        ssize_t n = write(file, p, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        p += n;
        bytes -= (size_t)n;
    }
    return 0;
}

static int put_text(int file, const char *text) {
    uint32_t bytes = (uint32_t)strlen(text);
    return put(file, &bytes, sizeof bytes) | put(file, text, bytes);
}

/* Write everything that was recorded so far; returns 0, or -1 if the file can't be written. Call it after
 * runner_itt_stop(). Format 1, little-endian: "ITTC" u32 version, u64 lost, u32 domains {u32 bytes, text}, u32 names {u32 bytes, text},
 * u32 threads {i32 tid, char name[32], u64 dropped, u64 events, event[]}. */
EXPORT int runner_itt_write(const char *path) {
    int file = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    if (file < 0) return -1;
    uint32_t version = 1, count = (uint32_t)g_domain_count, threads = 0;
    uint64_t lost = atomic_load(&g_lost);
    int bad = put(file, "ITTC", 4) | put(file, &version, 4) | put(file, &lost, 8) | put(file, &count, 4);
    for (uint32_t i = 0; i < count; i++) bad |= put_text(file, g_domains[i]->name);
    bad |= put(file, &g_name_count, 4);
    for (uint32_t i = 0; i < g_name_count; i++) bad |= put_text(file, g_names[i]);
    thread_buffer *first = atomic_load(&g_threads);
    for (thread_buffer *b = first; b; b = b->next) threads++;
    bad |= put(file, &threads, 4);
    for (thread_buffer *b = first; b; b = b->next) {
        uint64_t events = 0;
        for (chunk *c = b->first; c; c = c->next) events += c->used;
        bad |= put(file, &b->tid, 4) | put(file, b->name, sizeof b->name) | put(file, &b->dropped, 8) | put(file, &events, 8);
        for (chunk *c = b->first; c; c = c->next) bad |= put(file, c->events, c->used * sizeof(event));
    }
    return close(file) || bad ? -1 : 0;
}
