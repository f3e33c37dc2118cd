/* What this CPU can do at most: arithmetic on registers alone, and memory read and copied by all threads.
 *
 * No library is faster than its registers: oneDNN's convolutions exceed torch's best product of matrices, so that these
 * figures are the ceiling of a roofline. Each instruction set is compiled for itself by its `target` attribute, and
 * chosen by what the CPU says it has: one build serves every x86-64.
 *
 * Threads are pinned to the CPUs that the caller names. Each works in short pieces until its time is up, so that no loop
 * needs a length that suits the machine; the rate is the sum of the rates of all threads.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define MAX_THREADS 4096

/* Chains of instructions that don't wait for each other: more than latency times ports of any CPU so far. */
#define CHAINS 12
#define EACH(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11)
/* Instructions per chain in one piece of work: about a millisecond. */
#define PIECE 200000L

#if defined(__x86_64__)
#include <immintrin.h>

/* One piece of work: every chain is kept in its register (asm), and their sum is used, so that nothing is left out.
 * V: type of a register; FIRST(i): its first value; NEXT(x): one or more instructions. */
#define KERNEL(name, isa, constraint, V, SETUP, FIRST, NEXT, LAST)                                                     \
    __attribute__((target(isa))) static void name(void *unused) {                                                     \
        (void)unused;                                                                                                  \
        SETUP;                                                                                                         \
        V x0 = FIRST(0), x1 = FIRST(1), x2 = FIRST(2), x3 = FIRST(3), x4 = FIRST(4), x5 = FIRST(5), x6 = FIRST(6),     \
          x7 = FIRST(7), x8 = FIRST(8), x9 = FIRST(9), x10 = FIRST(10), x11 = FIRST(11);                               \
        for (long k = 0; k < PIECE; k++) {                                                                             \
            x0 = NEXT(x0), x1 = NEXT(x1), x2 = NEXT(x2), x3 = NEXT(x3), x4 = NEXT(x4), x5 = NEXT(x5), x6 = NEXT(x6),   \
            x7 = NEXT(x7), x8 = NEXT(x8), x9 = NEXT(x9), x10 = NEXT(x10), x11 = NEXT(x11);                             \
            __asm__ volatile("" : constraint(x0), constraint(x1), constraint(x2), constraint(x3), constraint(x4),      \
                             constraint(x5), constraint(x6), constraint(x7), constraint(x8), constraint(x9),           \
                             constraint(x10), constraint(x11));                                                        \
        }                                                                                                              \
        LAST;                                                                                                          \
    }
#define IN_X "+x"
#define IN_V "+v"

#define FIRST_PS128(i) _mm_set1_ps(i)
#define NEXT_PS128(x) _mm_add_ps(_mm_mul_ps(x, a), b)
KERNEL(fp32_sse2, "sse2", IN_X, __m128, __m128 a = _mm_set1_ps(0.5f); __m128 b = _mm_set1_ps(1e-9f), FIRST_PS128,
       NEXT_PS128, (void)0)

#define FIRST_PS256(i) _mm256_set1_ps(i)
#define NEXT_PS256(x) _mm256_fmadd_ps(x, a, b)
KERNEL(fp32_avx2, "avx2,fma", IN_X, __m256, __m256 a = _mm256_set1_ps(1.0000001f); __m256 b = _mm256_set1_ps(1e-9f),
       FIRST_PS256, NEXT_PS256, (void)0)

#define FIRST_PS512(i) _mm512_set1_ps(i)
#define NEXT_PS512(x) _mm512_fmadd_ps(x, a, b)
KERNEL(fp32_avx512, "avx512f", IN_V, __m512, __m512 a = _mm512_set1_ps(1.0000001f); __m512 b = _mm512_set1_ps(1e-9f),
       FIRST_PS512, NEXT_PS512, (void)0)

/* 0x3f80 is 1 in bfloat16, 0x0180 the smallest power of two whose product is no denormal. */
#define NEXT_BF16(x) _mm512_dpbf16_ps(x, a, b)
KERNEL(bf16_avx512, "avx512f,avx512bf16", IN_V, __m512, __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f803f80);
       __m512bh b = (__m512bh)_mm512_set1_epi32(0x01800180), FIRST_PS512, NEXT_BF16, (void)0)

/* Without VNNI a product of bytes takes three instructions, as in oneDNN's kernels. */
#define FIRST_I256(i) _mm256_set1_epi32(i)
#define NEXT_I256(x) _mm256_add_epi32(x, _mm256_madd_epi16(_mm256_maddubs_epi16(kept(a), b), ones))
__attribute__((target("avx2"))) static inline __m256i kept(__m256i a) {
    __asm__ volatile("" : "+x"(a)); /* the product would be computed once, before the loop */
    return a;
}
KERNEL(int8_avx2, "avx2", IN_X, __m256i, __m256i a = _mm256_set1_epi8(1); __m256i b = _mm256_set1_epi8(2);
       __m256i ones = _mm256_set1_epi16(1), FIRST_I256, NEXT_I256, (void)0)

#define FIRST_I512(i) _mm512_set1_epi32(i)
#define NEXT_I512(x) _mm512_add_epi32(x, _mm512_madd_epi16(_mm512_maddubs_epi16(kept512(a), b), ones))
__attribute__((target("avx512f"))) static inline __m512i kept512(__m512i a) {
    __asm__ volatile("" : "+v"(a));
    return a;
}
KERNEL(int8_avx512, "avx512f,avx512bw", IN_V, __m512i, __m512i a = _mm512_set1_epi8(1); __m512i b = _mm512_set1_epi8(2);
       __m512i ones = _mm512_set1_epi16(1), FIRST_I512, NEXT_I512, (void)0)

#define NEXT_AVXVNNI(x) _mm256_dpbusd_avx_epi32(x, a, b)
KERNEL(int8_avxvnni, "avx2,avxvnni", IN_X, __m256i, __m256i a = _mm256_set1_epi8(1); __m256i b = _mm256_set1_epi8(2),
       FIRST_I256, NEXT_AVXVNNI, (void)0)

#define NEXT_VNNI(x) _mm512_dpbusd_epi32(x, a, b)
KERNEL(int8_vnni, "avx512f,avx512vnni", IN_V, __m512i, __m512i a = _mm512_set1_epi8(1); __m512i b = _mm512_set1_epi8(2),
       FIRST_I512, NEXT_VNNI, (void)0)

/* AMX: four products of tiles that don't wait for each other, as many as four sums, two left and two right tiles allow.
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18. */
#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA 18
#define TILE_PIECE 20000L

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
} tile_config;

static int may_use_tiles(void) {
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

/* A constant, because GCC 12 takes stores to all but the first eight bytes of a local one for dead. */
static const tile_config TILES = {
    .palette = 1,
    .bytes_per_row = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

__attribute__((target("amx-tile"))) static void configure_tiles(void) {
    _tile_loadconfig(&TILES);
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); /* macros: no commas */
    _tile_zero(4); _tile_zero(5); _tile_zero(6); _tile_zero(7);
}

__attribute__((target("amx-tile,amx-bf16"))) static void bf16_amx(void *unused) {
    (void)unused;
    configure_tiles();
    for (long k = 0; k < TILE_PIECE; k++) {
        _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
}

__attribute__((target("amx-tile,amx-int8"))) static void int8_amx(void *unused) {
    (void)unused;
    configure_tiles();
    for (long k = 0; k < TILE_PIECE; k++) {
        _tile_dpbusd(0, 4, 6); _tile_dpbusd(1, 4, 7); _tile_dpbusd(2, 5, 6); _tile_dpbusd(3, 5, 7);
    }
    _tile_release();
}

static int has_sse2(void) { return 1; }
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static int has_avx512(void) { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"); }
static int has_avx512_bf16(void) { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
static int has_avx_vnni(void) { return has_avx2() && __builtin_cpu_supports("avxvnni"); }
static int has_avx512_vnni(void) { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
static int has_amx_bf16(void) { return __builtin_cpu_supports("amx-bf16") && may_use_tiles(); }
static int has_amx_int8(void) { return __builtin_cpu_supports("amx-int8") && may_use_tiles(); }
#endif

/* ---- memory ---- */

/* Each thread has its own part, larger than the caches; what is read is added up, so that it is read. */
typedef struct {
    uint64_t *from, *to;
    size_t words;
    uint64_t sum;
} part;

static void read_part(void *of) {
    part *p = of;
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (size_t i = 0; i < p->words; i += 4) a += p->from[i], b += p->from[i + 1], c += p->from[i + 2], d += p->from[i + 3];
    p->sum += a + b + c + d;
}

static void copy_part(void *of) {
    part *p = of;
    memcpy(p->to, p->from, p->words * sizeof *p->from);
}

/* ---- what there is to measure ---- */

typedef struct {
    const char *dtype, *isa;
    int (*is_supported)(void);
    void (*work)(void *);
    double operations; /* of one piece: a product and its sum are two */
} kernel;

#define OF_LANES(lanes) (2.0 * (lanes) * CHAINS * PIECE)
#define OF_TILES(depth) (2.0 * 16 * 16 * (depth) * 4 * TILE_PIECE)

/* Of each dtype every set that a CPU may have; the caller takes the best. */
static const kernel KERNELS[] = {
#if defined(__x86_64__)
    {"fp32", "sse2", has_sse2, fp32_sse2, OF_LANES(4)},
    {"fp32", "avx2", has_avx2, fp32_avx2, OF_LANES(8)},
    {"fp32", "avx512", has_avx512, fp32_avx512, OF_LANES(16)},
    {"bf16", "avx512_bf16", has_avx512_bf16, bf16_avx512, OF_LANES(32)},
    {"bf16", "amx_bf16", has_amx_bf16, bf16_amx, OF_TILES(32)},
    {"int8", "avx2", has_avx2, int8_avx2, OF_LANES(32)},
    {"int8", "avx512", has_avx512, int8_avx512, OF_LANES(64)},
    {"int8", "avx_vnni", has_avx_vnni, int8_avxvnni, OF_LANES(32)},
    {"int8", "avx512_vnni", has_avx512_vnni, int8_vnni, OF_LANES(64)},
    {"int8", "amx_int8", has_amx_int8, int8_amx, OF_TILES(64)},
#endif
    {0, 0, 0, 0, 0},
};

typedef struct {
    pthread_barrier_t *barrier;
    void (*work)(void *);
    size_t bytes; /* of memory to work on; 0: none */
    int cpu, is_copy, is_ready;
    double seconds, amount, rate;
} worker;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void *run(void *argument) {
    worker *w = argument;
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(w->cpu, &cpus);
    w->is_ready = pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus) == 0;
    part p = {0, 0, w->bytes / sizeof *p.from, 0};
    uint64_t *memory = 0;
    size_t all = w->bytes * (w->is_copy ? 2 : 1);
    if (w->bytes && w->is_ready) {
        memory = mmap(0, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        w->is_ready = memory != MAP_FAILED;
    }
    if (w->bytes && w->is_ready) {
        memset(memory, 1, all); /* the thread that uses a page first decides its node */
        p.from = memory, p.to = memory + p.words;
    }
    if (w->is_ready) w->work(&p); /* wakes the registers, and the clock's turbo */
    pthread_barrier_wait(w->barrier);
    if (w->is_ready) {
        double start = now_s(), end = start;
        long pieces = 0;
        while (end - start < w->seconds) w->work(&p), pieces++, end = now_s();
        w->rate = pieces * w->amount / (end - start);
    }
    pthread_barrier_wait(w->barrier); /* nobody's memory goes back while others still measure */
    if (w->bytes && w->is_ready) munmap(memory, all);
    return 0;
}

static double rate_of(worker like, const int *cpus, int threads) {
    if (threads < 1 || threads > MAX_THREADS) return -1;
    worker *workers = calloc(threads, sizeof *workers);
    pthread_t *ids = calloc(threads, sizeof *ids);
    pthread_barrier_t barrier;
    double sum = -1;
    if (workers && ids && pthread_barrier_init(&barrier, 0, threads) == 0) {
        int started = 0;
        for (int i = 0; i < threads; i++) {
            workers[i] = like, workers[i].barrier = &barrier, workers[i].cpu = cpus[i];
            if (pthread_create(&ids[i], 0, run, &workers[i])) break;
            started++;
        }
        if (started < threads) _exit(70); /* those that wait at the barrier could not be ended */
        sum = 0;
        for (int i = 0; i < threads; i++) {
            pthread_join(ids[i], 0);
            sum = workers[i].is_ready && sum >= 0 ? sum + workers[i].rate : -1;
        }
        pthread_barrier_destroy(&barrier);
    }
    free(workers), free(ids);
    return sum;
}

/* ---- for runner/worker/peak.py ---- */

/* NULL past the last. */
EXPORT const char *runner_peak_dtype(int number) { return KERNELS[number].dtype; }
EXPORT const char *runner_peak_isa(int number) { return KERNELS[number].isa; }
EXPORT int runner_peak_is_supported(int number) { return KERNELS[number].is_supported(); }

/* Operations per second of all threads together; -1 if a thread could not be pinned. */
EXPORT double runner_peak_registers(int number, const int *cpus, int threads, double seconds) {
    worker like = {.work = KERNELS[number].work, .seconds = seconds, .amount = KERNELS[number].operations};
    return rate_of(like, cpus, threads);
}

/* Bytes per second of all threads together, `bytes` of memory each; a copy counts what it reads and what it writes. */
EXPORT double runner_peak_memory(int is_copy, const int *cpus, int threads, double seconds, size_t bytes) {
    bytes &= ~(size_t)63;
    worker like = {.work = is_copy ? copy_part : read_part, .bytes = bytes, .is_copy = is_copy, .seconds = seconds,
                   .amount = (double)bytes * (is_copy ? 2 : 1)};
    return rate_of(like, cpus, threads);
}
