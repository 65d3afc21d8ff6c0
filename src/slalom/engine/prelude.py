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
