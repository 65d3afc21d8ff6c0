"""The C that every kernel begins with: arithmetic with torch's rules, storage formats, threads."""

from __future__ import annotations

from typing import Final

PREAMBLE: Final = r"""
#include <math.h>
#include <stdint.h>
#include <string.h>

/* nan wins, as in torch */
static inline float sl_maxf(float a, float b) { return (a > b || a != a) ? a : b; }
static inline float sl_minf(float a, float b) { return (a < b || a != a) ? a : b; }
static inline double sl_max(double a, double b) { return (a > b || a != a) ? a : b; }
static inline double sl_min(double a, double b) { return (a < b || a != a) ? a : b; }
/* As torch: from the nearer end, so that a weight of 1 gives b to the bit. Where the processor adds and multiplies in
   one, it is told to: left to itself, a compiler does so in one kernel and not in another, and bits would differ. */
#if defined(__FMA__) || defined(__aarch64__)
#define sl_fmaf __builtin_fmaf
#define sl_fma __builtin_fma
#else
#define sl_fmaf(x, y, z) ((x) * (y) + (z))
#define sl_fma(x, y, z) ((x) * (y) + (z))
#endif
static inline float sl_lerpf(float a, float b, float w) {
    return w < 0.5f ? sl_fmaf(w, b - a, a) : sl_fmaf(w - 1.0f, b - a, b);
}
static inline double sl_lerp(double a, double b, double w) {
    return w < 0.5 ? sl_fma(w, b - a, a) : sl_fma(w - 1.0, b - a, b);
}
static inline float sl_signf(float a) { return (float)((a > 0.0f) - (a < 0.0f)); }
static inline double sl_sign(double a) { return (double)((a > 0.0) - (a < 0.0)); }
static inline float sl_modf(float a, float b) { return a - b * floorf(a / b); }
static inline double sl_mod(double a, double b) { return a - b * floor(a / b); }
static inline double sl_atan2(double y, double x) { return atan2(y, x); }

/* Without branches, so that it vectorises: reduce to [0, tan(pi/8)], odd polynomial, unfold. Error below 3e-7. */
static inline float sl_atan2f(float y, float x) {
    float ax = fabsf(x), ay = fabsf(y);
    float big = ax > ay ? ax : ay, small = ax > ay ? ay : ax;
    float r = big == 0.0f ? 0.0f : (big == small ? 1.0f : small / big);
    float upper = r > 0.41421356f ? 1.0f : 0.0f;
    float z = upper != 0.0f ? (r - 1.0f) / (r + 1.0f) : r;
    float q = z * z;
    float p = ((8.05374449538e-2f * q - 1.38776856032e-1f) * q + 1.99777106478e-1f) * q - 3.33329491539e-1f;
    p = p * q * z + z;
    float angle = p + (upper != 0.0f ? 0.785398163397f : 0.0f);
    angle = ay > ax ? 1.57079632679f - angle : angle;
    angle = (x < 0.0f || (x == 0.0f && 1.0f / x < 0.0f)) ? 3.14159265359f - angle : angle;
    angle = (x != x || y != y) ? x + y : angle;
    return copysignf(angle, y);
}

/* exp and log without branches or calls, so that loops vectorise; Cephes' polynomials, errors of a few ulp.
   Scaling in two halves reaches subnormal results and overflows to infinity by itself. */
typedef union { int32_t i; float f; } sl_bits;
static inline float sl_expf(float x) {
    float c = x > 89.0f ? 89.0f : x;
    c = c < -104.0f ? -104.0f : c;
    c = x != x ? 0.0f : c;
    float n = floorf(c * 1.44269504088896341f + 0.5f);
    float r = c - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t k = (int32_t)n, half = k / 2;
    sl_bits a, b;
    a.i = (half + 127) << 23;
    b.i = (k - half + 127) << 23;
    float y = p * a.f * b.f;
    return x != x ? x : y;
}
static inline float sl_logf(float x) {
    float normal = x < 1.17549435e-38f ? x * 8388608.0f : x;
    sl_bits b;
    b.f = normal;
    float e = (float)((b.i >> 23) & 0xff) - (x < 1.17549435e-38f ? 149.0f : 126.0f);
    b.i = (b.i & 0x007fffff) | 0x3f000000;
    float low = b.f < 0.707106781186547524f ? 1.0f : 0.0f;
    e = e - low;
    float m = b.f + low * b.f - 1.0f, z = m * m;
    float p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    float y = p * m * z - e * 2.12194440e-4f - 0.5f * z + m + e * 0.693359375f;
    y = x == 0.0f ? -INFINITY : y;
    y = x == INFINITY ? x : y;
    return x < 0.0f || x != x ? NAN : y;
}
static inline double sl_exp(double x) { return exp(x); }
static inline double sl_log(double x) { return log(x); }

/* Random numbers: see algebra/chance.py, whose arithmetic this is. What depends on stream, count and seed alone leaves
   the loop. */
static inline uint32_t sl_mix(uint32_t x) {
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}
static inline float sl_uniform(uint64_t index, float stream, float t, uint32_t seed) {
    const uint32_t whose = (uint32_t)stream, when = (uint32_t)t;
    const uint32_t first = sl_mix(sl_mix(sl_mix(seed) ^ whose) ^ when);
    const uint32_t second = sl_mix(sl_mix(sl_mix(seed ^ 0x9e3779b9u) ^ whose) ^ when);
    const uint32_t bits = sl_mix(sl_mix((uint32_t)index ^ first) ^ second ^ (uint32_t)(index >> 32));
    return ((float)(int32_t)(bits >> 9) + 0.5f) * 0x1p-23f;
}

/* Eight signs share a byte, the first in the lowest bit; 64 bits at a time, lowest byte first as on x86 and ARM.
   Buffers hold a multiple of eight. */
static inline void sl_unpack(const uint8_t *bits, uint8_t *ones, int64_t count) {
    for (int64_t k = 0; k < (count + 7) / 8; k++) {
        uint64_t x = (bits[k] * 0x0101010101010101ull) & 0x8040201008040201ull;
        x = ((x + 0x7f7f7f7f7f7f7f7full) >> 7) & 0x0101010101010101ull;
        memcpy(ones + 8 * k, &x, 8);
    }
}
static inline void sl_pack(uint8_t *ones, uint8_t *bits, int64_t count) {
    for (int64_t k = count; k % 8; k++) ones[k] = 0;
    for (int64_t k = 0; k < (count + 7) / 8; k++) {
        uint64_t x; memcpy(&x, ones + 8 * k, 8);
        bits[k] = (uint8_t)((x * 0x0102040810204080ull) >> 56);
    }
}

typedef struct {
    const int64_t *T; const double *H; int64_t hs; double *S; double *V;
    const int64_t *C; int64_t chunks; double *P; double *Q; int64_t tensors;
} args_t;
typedef void range_t(const args_t *, int64_t, int64_t);

/* Threads come from the OpenMP runtime that torch has loaded, through its own entry point: a pragma would bind the
   code to the runtime of whichever compiler is at hand. */
#ifdef SLALOM_GOMP
extern void GOMP_parallel(void (*)(void *), void *, unsigned, unsigned);
extern int omp_get_thread_num(void);
extern int omp_get_num_threads(void);
typedef struct { range_t *range; const args_t *args; int64_t count; } task_t;
static void sl_worker(void *data) {
    const task_t *task = (const task_t *)data;
    const int64_t me = omp_get_thread_num(), all = omp_get_num_threads();
    task->range(task->args, task->count * me / all, task->count * (me + 1) / all);
}
static void sl_run(range_t *range, const args_t *args, int64_t count, int threads) {
    task_t task = {range, args, count};
    if (threads > 1 && count > 1) GOMP_parallel(sl_worker, &task, (unsigned)threads, 0);
    else range(args, 0, count);
}
#else
static void sl_run(range_t *range, const args_t *args, int64_t count, int threads) {
    (void)threads;
    range(args, 0, count);
}
#endif

static inline float sl_from_bf16(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16; float f; memcpy(&f, &bits, 4); return f;
}
static inline uint16_t sl_to_bf16(float f) {
    uint32_t bits; memcpy(&bits, &f, 4);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (uint16_t)(f != f ? 0x7fc0u : rounded);
}
"""
