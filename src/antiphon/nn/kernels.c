/* Whole recurrent layers, what a step does between its matrix products, and a softmax with its gradient.
 *
 * The file includes itself: once for f32, once for bf16 (bit patterns in uint16_t; sums are f32 in both).
 * Rows are independent and every row is one thread's, so results do not depend on the number of threads.
 * Built by kernels.py for the machine it runs on; OpenMP's symbols are PyTorch's, so that there is one thread pool.
 */
#ifndef NUMBER

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PARALLEL_FROM 8192 /* numbers below which waking a second thread costs more than it saves */
#define READ_BLOCK 128
#define NORM_BLOCK 16384
#define NORM_BLOCKS 512

static inline float widen(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

static inline uint16_t narrow(float value) { /* to the nearest, ties to even */
    uint32_t wide;
    memcpy(&wide, &value, 4);
    uint32_t nan = (wide & 0x7fffffff) > 0x7f800000;
    return nan ? 0x7fc0 : (uint16_t)((wide + 0x7fff + ((wide >> 16) & 1)) >> 16);
}

/* a - n * b, which the compiler must not join with another product of n: what a sum of both would lose is the point */
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define LESS(a, n, b) __builtin_fmaf(-(n), b, a)
#else
#define LESS(a, n, b) ((a) - (n) * (b))
#endif

static inline float exponential(float x) { /* relative error below 2e-7 with FMA, 4e-6 without; saturates at +-87 */
    x = x < -87.0f ? -87.0f : x; /* Cephes, expf */
    x = x > 87.0f ? 87.0f : x;
    float n = rintf(x * 1.44269504088896341f);
    float r = LESS(LESS(x, n, 0.693359375f), n, -2.12194440e-4f);
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t power = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &power, 4);
    return p * scale;
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }
static inline float squash(float x) { return 2.0f / (1.0f + exponential(-2.0f * x)) - 1.0f; } /* tanh */

/* Adam for rows (n) of a table: grad (n, D); weights, first, second and average (V, D); rested (n): what the second moments
 * have kept since; average and waited (n) may be null.
 * steps: rate, beta1, beta2, 1 / (1 - beta1^t), 1 / (1 - beta2^t), decay of the average */
void adam_rows(int n, int D, const int64_t *rows, const float *grad, float *weights, float *first, float *second,
               const float *rested, float *average, const float *waited, const float *steps) {
    float rate = steps[0], beta1 = steps[1], beta2 = steps[2], up1 = steps[3], up2 = steps[4], decay = steps[5];
#pragma omp parallel for schedule(static) if ((long)n * D >= PARALLEL_FROM)
    for (int row = 0; row < n; row++) {
        long at = (long)rows[row] * D;
        const float *g = grad + (long)row * D;
        float *w = weights + at, *m = first + at, *v = second + at, *mean = average ? average + at : 0;
        float kept = mean ? waited[row] : 0.0f, left = rested[row];
#pragma omp simd
        for (int d = 0; d < D; d++) {
            float old = w[d];
            m[d] = g[d] + beta1 * (m[d] - g[d]);
            v[d] = g[d] * g[d] + beta2 * (left * v[d] - g[d] * g[d]);
            w[d] = old - rate * (m[d] * up1) / (sqrtf(v[d] * up2) + 1e-8f);
            if (mean) {
                float now = old + kept * (mean[d] - old); /* the average of the time the row stood still */
                mean[d] = w[d] + decay * (now - w[d]);
            }
        }
    }
}

/* scores (n, T, S) = sum over A of v tanh(q + k) where mask (n, S) is true, else 0; q (n, T, A), k (n, S, A), v (A) */
void tanh_scores(int n, int T, int S, int A, const float *q, const float *k, const float *v, const uint8_t *mask,
                 float *scores) {
#pragma omp parallel for schedule(static) if ((long)n * T * S * A >= PARALLEL_FROM)
    for (int row = 0; row < n; row++)
        for (int t = 0; t < T; t++) {
            const float *query = q + ((long)row * T + t) * A;
            for (int s = 0; s < S; s++) {
                const float *key = k + ((long)row * S + s) * A;
                float sum = 0.0f;
                if (mask[(long)row * S + s]) {
#pragma omp simd reduction(+ : sum)
                    for (int a = 0; a < A; a++) sum += v[a] * squash(query[a] + key[a]);
                }
                scores[((long)row * T + t) * S + s] = sum;
            }
        }
}

/* from d_scores (n, T, S): d_q (n, T, A) is set; d_k (n, S, A) and d_v (n, A), one row each, are added to */
void tanh_scores_backward(int n, int T, int S, int A, const float *q, const float *k, const float *v,
                          const uint8_t *mask, const float *d_scores, float *d_q, float *d_k, float *d_v) {
#pragma omp parallel for schedule(static) if ((long)n * T * S * A >= PARALLEL_FROM)
    for (int row = 0; row < n; row++)
        for (int t = 0; t < T; t++) {
            const float *query = q + ((long)row * T + t) * A;
            float *to_query = d_q + ((long)row * T + t) * A, *to_score = d_v + (long)row * A;
            memset(to_query, 0, sizeof(float) * A);
            for (int s = 0; s < S; s++) {
                float grad = d_scores[((long)row * T + t) * S + s];
                if (!mask[(long)row * S + s] || grad == 0.0f) continue;
                const float *key = k + ((long)row * S + s) * A;
                float *to_key = d_k + ((long)row * S + s) * A;
#pragma omp simd
                for (int a = 0; a < A; a++) {
                    float value = squash(query[a] + key[a]);
                    float slope = grad * v[a] * (1.0f - value * value);
                    to_key[a] += slope;
                    to_query[a] += slope;
                    to_score[a] += grad * value;
                }
            }
        }
}

/* --- a matrix turned over -------------------------------------------------------------------------------------------
 * Squares of 16 by 16 in registers, or number by number where there are no such registers; threads share the columns.
 */
#define SQUARE 16
#define STRIP 64 /* columns of x that one thread takes at a time: whole lines of memory, read and written */

static inline void turn(long rows, long columns, const float *x, long stride, float *out, long apart) {
    for (long column = 0; column < columns; column++)
        for (long row = 0; row < rows; row++) out[column * apart + row] = x[row * stride + column];
}

#ifdef __AVX512F__
#include <immintrin.h>

static inline void turn_square(const float *x, long stride, float *out, long apart) {
    __m512 a[SQUARE], b[SQUARE];
    _Pragma("GCC unroll 16") for (int r = 0; r < 16; r++) a[r] = _mm512_loadu_ps(x + r * stride);
    _Pragma("GCC unroll 8") for (int r = 0; r < 16; r += 2) { /* pairs of rows */
        b[r] = _mm512_unpacklo_ps(a[r], a[r + 1]);
        b[r + 1] = _mm512_unpackhi_ps(a[r], a[r + 1]);
    }
    _Pragma("GCC unroll 4") for (int r = 0; r < 16; r += 4) { /* fours: a[r + c] has column c of each group of four */
        a[r] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b[r]), _mm512_castps_pd(b[r + 2])));
        a[r + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b[r]), _mm512_castps_pd(b[r + 2])));
        a[r + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b[r + 1]), _mm512_castps_pd(b[r + 3])));
        a[r + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b[r + 1]), _mm512_castps_pd(b[r + 3])));
    }
    _Pragma("GCC unroll 4") for (int c = 0; c < 4; c++) { /* the groups of four, which are quarters of a vector */
        __m512 low = _mm512_shuffle_f32x4(a[c], a[c + 4], 0x88), high = _mm512_shuffle_f32x4(a[c + 8], a[c + 12], 0x88);
        __m512 low_odd = _mm512_shuffle_f32x4(a[c], a[c + 4], 0xdd);
        __m512 high_odd = _mm512_shuffle_f32x4(a[c + 8], a[c + 12], 0xdd);
        _mm512_storeu_ps(out + c * apart, _mm512_shuffle_f32x4(low, high, 0x88));
        _mm512_storeu_ps(out + (c + 8) * apart, _mm512_shuffle_f32x4(low, high, 0xdd));
        _mm512_storeu_ps(out + (c + 4) * apart, _mm512_shuffle_f32x4(low_odd, high_odd, 0x88));
        _mm512_storeu_ps(out + (c + 12) * apart, _mm512_shuffle_f32x4(low_odd, high_odd, 0xdd));
    }
}
#else
static inline void turn_square(const float *x, long stride, float *out, long apart) {
    turn(SQUARE, SQUARE, x, stride, out, apart);
}
#endif

/* x (n, m) -> out (m, n) */
void transpose(long n, long m, const float *x, float *out) {
#pragma omp parallel for schedule(static) if (n * m >= PARALLEL_FROM)
    for (long first = 0; first < m; first += STRIP) {
        long last = m - first < STRIP ? m : first + STRIP, whole = n / SQUARE * SQUARE;
        for (long row = 0; row < whole; row += SQUARE)
            for (long column = first; column < last; column += SQUARE) {
                if (last - column >= SQUARE)
                    turn_square(x + row * m + column, m, out + column * n + row, n);
                else
                    turn(SQUARE, last - column, x + row * m + column, m, out + column * n + row, n);
            }
        turn(n - whole, last - first, x + whole * m + first, m, out + first * n + whole, n);
    }
}

/* out (n, of `bytes` each) = the rows of x with these numbers, zero for a number below zero */
void take_rows(long n, long bytes, const int64_t *rows, const char *x, char *out) {
#pragma omp parallel for schedule(static) if (n * bytes >= 4 * PARALLEL_FROM)
    for (long row = 0; row < n; row++) {
        if (rows[row] < 0)
            memset(out + row * bytes, 0, bytes);
        else
            memcpy(out + row * bytes, x + rows[row] * bytes, bytes);
    }
}

/* --- a whole LSTM layer over packed positions, in bf16, with AMX or AVX512_BF16 ------------------------------------
 *
 * Threads share the units, not the rows: a thread's part of the weights stays in its own cache for all steps, and a
 * unit's four gates are one thread's, so the products of a step flow into its functions without leaving it.
 */
int has_lstm_layer(void);

#ifdef __AVX512BF16__ /* a processor with AMX has it too */

#define EDGE 16  /* rows and f32 columns of a tile; f32 numbers of a vector */
#define DEPTH 32 /* bf16 columns of a tile; bf16 numbers of a vector */

static inline long up(long value, long grain) { return (value + grain - 1) / grain * grain; }

static void *zeros(size_t bytes) {
    void *memory = aligned_alloc(64, up(bytes, 64));
    if (memory) memset(memory, 0, up(bytes, 64));
    return memory;
}

/* weights (K x N as w[k * row + n * column]) as tiles [N / 16][K / 32][16 pairs of k][16 n][2], zero where there are none */
static uint16_t *tiled(const uint16_t *w, long K, long N, long row, long column) {
    long depth = up(K, DEPTH), width = up(N, EDGE), across = width / EDGE, down = depth / DEPTH;
    uint16_t *packed = aligned_alloc(64, 2 * depth * width);
    if (!packed) return packed;
#pragma omp parallel for schedule(static)
    for (long tile = 0; tile < across * down; tile++) {
        /* in the order of w's memory: neighbours share its lines */
        long at_n = column == 1 ? tile % across : tile / down, at_k = column == 1 ? tile / across : tile % down;
        long first_n = at_n * EDGE, first_k = at_k * DEPTH;
        uint16_t *out = packed + (at_n * down + at_k) * EDGE * DEPTH;
        int whole = first_k + DEPTH <= K && first_n + EDGE <= N;
        if (whole && row == 1 && column % 2 == 0) { /* pairs of k stand beside each other already: columns become rows */
            turn_square((const float *)(w + first_k + first_n * column), column / 2, (float *)out, EDGE);
        } else if (whole && column == 1) { /* two rows become one */
            for (long pair = 0; pair < DEPTH / 2; pair++) {
                const uint16_t *even = w + (first_k + 2 * pair) * row + first_n, *odd = even + row;
                __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)even));
                __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)odd));
                _mm512_store_si512(out + pair * DEPTH, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
            }
        } else {
            memset(out, 0, 2 * EDGE * DEPTH);
            for (long k = first_k; k < first_k + DEPTH && k < K; k++)
                for (long n = first_n; n < first_n + EDGE && n < N; n++)
                    out[(k - first_k) / 2 * DEPTH + (n - first_n) * 2 + k % 2] = w[k * row + n * column];
        }
    }
    return packed;
}

/* A product that stays in registers: s0 and s1 (ROWS, 16), rows `out` apart = x (ROWS, K) times w0 and w1 (K, 16). */
#define VECTORS(ROWS)                                                                                                  \
    static void vectors_##ROWS(const uint16_t *x, long stride, const uint16_t *w0, const uint16_t *w1, long blocks,    \
                               float *s0, float *s1, long out) {                                                       \
        __m512 left[ROWS], right[ROWS];                                                                                \
        _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++) left[r] = right[r] = _mm512_setzero_ps();              \
        for (long pair = 0; pair < blocks * DEPTH / 2; pair++) {                                                       \
            __m512bh first = (__m512bh)_mm512_load_si512(w0 + pair * DEPTH);                                           \
            __m512bh second = (__m512bh)_mm512_load_si512(w1 + pair * DEPTH);                                          \
            _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++) {                                                  \
                int two;                                                                                               \
                memcpy(&two, x + r * stride + 2 * pair, 4);                                                            \
                __m512bh twos = (__m512bh)_mm512_set1_epi32(two);                                                      \
                left[r] = _mm512_dpbf16_ps(left[r], first, twos);                                                      \
                right[r] = _mm512_dpbf16_ps(right[r], second, twos);                                                   \
            }                                                                                                          \
        }                                                                                                              \
        _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++) {                                                      \
            _mm512_store_ps(s0 + r * out, left[r]);                                                                    \
            _mm512_store_ps(s1 + r * out, right[r]);                                                                   \
        }                                                                                                              \
    }
VECTORS(12)
VECTORS(8)
VECTORS(4)
#undef VECTORS

#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t column_bytes[16];
    uint8_t rows[16];
} tiles;

static int has_tiles; /* whether the system lends them, too */
int has_lstm_layer(void) {
    has_tiles = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
    return 1;
}

static void tiles_begin(tiles *before) { /* whoever used the tiles before finds them as they were */
    tiles ours;
    if (!has_tiles) return;
    memset(&ours, 0, sizeof ours);
    ours.palette = 1;
    for (int tile = 0; tile < 8; tile++) ours.column_bytes[tile] = 64, ours.rows[tile] = EDGE;
    _tile_storeconfig(before);
    _tile_loadconfig(&ours);
}

static void tiles_end(const tiles *before) {
    if (!has_tiles) return;
    if (before->palette)
        _tile_loadconfig(before);
    else
        _tile_release();
}

/* sums (2 x 2 tiles of 16 x 16 f32: rows r, r + 16 by columns of two tile columns) = x (32 rows from x on) times w */
static inline void four_tiles(const uint16_t *x, long stride, const uint16_t *w0, const uint16_t *w1, long blocks,
                              float *s00, float *s01, float *s10, float *s11, long out) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (long block = 0; block < blocks; block++) {
        _tile_loadd(4, x + block * DEPTH, 2 * stride);
        _tile_loadd(6, w0 + block * EDGE * DEPTH, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, w1 + block * EDGE * DEPTH, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, x + EDGE * stride + block * DEPTH, 2 * stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, s00, 4 * out);
    _tile_stored(1, s01, 4 * out);
    _tile_stored(2, s10, 4 * out);
    _tile_stored(3, s11, 4 * out);
}
#else
typedef int tiles;
enum { has_tiles = 0 };
int has_lstm_layer(void) { return 1; }
static void tiles_begin(tiles *before) { (void)before; }
static void tiles_end(const tiles *before) { (void)before; }
#define four_tiles(...) ((void)0)
#endif

/* The sums s0 and s1 of two times 16 columns, for at most 32 rows of x, for which there is room. Two columns, not more:
 * their weights stay in the first cache while the rows go by. */
static inline void two_sums(const uint16_t *x, long stride, long rows, const uint16_t *w0, const uint16_t *w1,
                            long blocks, float *s0, float *s1, long out) {
    if (has_tiles) {
        four_tiles(x, stride, w0, w1, blocks, s0, s1, s0 + EDGE * out, s1 + EDGE * out, out);
        return;
    }
    for (long row = 0, now; row < rows; row += now) {
        now = rows - row > 8 ? 12 : rows - row > 4 ? 8 : 4;
        (now == 12 ? vectors_12 : now == 8 ? vectors_8 : vectors_4)(x + row * stride, stride, w0, w1, blocks,
                                                                    s0 + row * out, s1 + row * out, out);
    }
}

/* 16 bf16 numbers as f32 */
static inline __m512 widen_edge(const uint16_t *from) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

/* 16 numbers to the nearest bf16, in one instruction; `narrow` does the same, but for what is smaller than 1e-38 */
static inline void narrow_edge(__m512 from, uint16_t *to) {
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(from));
}

/* 1 / (1 + e^-x) of 16 numbers as `sigmoid`, but without a division: a reciprocal of 14 bits and a Newton step */
static inline __m512 sigmoid_edge(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-87.0f), _mm512_min_ps(_mm512_set1_ps(87.0f), x)); /* NaN, second, stays NaN */
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(-1.44269504088896341f)), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), _mm512_sub_ps(_mm512_setzero_ps(), x));
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    __m512 one = _mm512_set1_ps(1.0f);
    p = _mm512_add_ps(one, _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r));
    __m512 below = _mm512_add_ps(one, _mm512_scalef_ps(p, n)), y = _mm512_rcp14_ps(below);
    return _mm512_mul_ps(y, _mm512_fnmadd_ps(below, y, _mm512_set1_ps(2.0f)));
}

/* tanh of 16 numbers, as `squash` */
static inline __m512 squash_edge(__m512 x) {
    __m512 two = _mm512_set1_ps(2.0f);
    return _mm512_fmsub_ps(two, sigmoid_edge(_mm512_mul_ps(two, x)), _mm512_set1_ps(1.0f));
}

/* The functions of one row's 16 units; their sums are row r of the tiles of each gate. */
static inline void lstm_edge(long H, float (*sums)[2 * EDGE][EDGE], long r, uint16_t *gate, const float *shift,
                             const float *old, float *cell, uint16_t *output) {
    __m512 of[4];
    _Pragma("GCC unroll 4") for (int part = 0; part < 4; part++) {
        __m512 sum = _mm512_add_ps(_mm512_load_ps(sums[part][r]), _mm512_loadu_ps(shift + part * H));
        sum = _mm512_add_ps(sum, widen_edge(gate + part * H));
        of[part] = part == 2 ? squash_edge(sum) : sigmoid_edge(sum);
        narrow_edge(of[part], gate + part * H);
    }
    __m512 c = _mm512_fmadd_ps(of[1], _mm512_loadu_ps(old), _mm512_mul_ps(of[0], of[2]));
    _mm512_storeu_ps(cell, c);
    narrow_edge(_mm512_mul_ps(of[3], squash_edge(c)), output);
}

/* The same for the last units, `width` of them. */
static void lstm_rest(long width, long H, float (*sums)[2 * EDGE][EDGE], long r, uint16_t *gate, const float *shift,
                      const float *old, float *cell, uint16_t *output) {
    for (long j = 0; j < width; j++) {
        float i = sigmoid(widen(gate[j]) + sums[0][r][j] + shift[j]);
        float f = sigmoid(widen(gate[H + j]) + sums[1][r][j] + shift[H + j]);
        float g = squash(widen(gate[2 * H + j]) + sums[2][r][j] + shift[2 * H + j]);
        float o = sigmoid(widen(gate[3 * H + j]) + sums[3][r][j] + shift[3 * H + j]);
        float c = cell[j] = f * old[j] + i * g;
        gate[j] = narrow(i), gate[H + j] = narrow(f), gate[2 * H + j] = narrow(g), gate[3 * H + j] = narrow(o);
        output[j] = narrow(o * squash(c));
    }
}

/* As lstm_forward for all steps: counts (steps) rows of each step, falling; a (P, 4H) becomes the gates; w (4H, H);
 * h0, c0 (B, H) -> carried (P, H), h (P, H), last (B, H): the cell state after each row's last step. 0: no memory. */
int lstm_layer_forward(int steps, const int64_t *counts, int B, int H, uint16_t *a, const uint16_t *w,
                       const float *bias, const uint16_t *h0, const float *c0, float *carried, uint16_t *h,
                       float *last) {
    long depth = up(H, DEPTH), rows = up(B, 2 * EDGE), units = up(H, EDGE) / EDGE, blocks = depth / DEPTH;
    uint16_t *packed[4] = {0}, *now = zeros(2 * rows * depth), *next = zeros(2 * rows * depth);
    int fine = now && next;
    for (int gate = 0; gate < 4 && fine; gate++)
        fine = (packed[gate] = tiled(w + (long)gate * H * H, H, H, 1, H)) != 0;
    if (fine) {
        for (long row = 0; row < B; row++) memcpy(now + row * depth, h0 + row * H, 2 * H);
#pragma omp parallel
        {
            float sums[4][2 * EDGE][EDGE] __attribute__((aligned(64)));
            tiles kept __attribute__((aligned(64)));
            tiles_begin(&kept);
            long at = 0;
            const float *before = c0;
            uint16_t *from = now, *to = next;
            for (int step = 0; step < steps; step++) {
                long n = counts[step], ends = step + 1 < steps ? counts[step + 1] : 0;
#pragma omp for schedule(static)
                for (long unit = 0; unit < units; unit++) {
                    long first = unit * EDGE, width = H - first < EDGE ? H - first : EDGE;
                    long weights = unit * blocks * EDGE * DEPTH;
                    for (long row = 0; row < n; row += 2 * EDGE) {
                        long most = n - row < 2 * EDGE ? n - row : 2 * EDGE;
                        for (int gate = 0; gate < 4; gate += 2)
                            two_sums(from + row * depth, depth, most, packed[gate] + weights, packed[gate + 1] + weights,
                                     blocks, sums[gate][0], sums[gate + 1][0], EDGE);
                        for (long r = 0; r < most; r++) {
                            long place = at + row + r, kept_row = row + r;
                            const float *old = before + kept_row * H + first, *shift = bias + first;
                            uint16_t *gate = a + place * 4 * H + first, *output = h + place * H + first;
                            float *cell = carried + place * H + first;
                            if (width == EDGE)
                                lstm_edge(H, sums, r, gate, shift, old, cell, output);
                            else
                                lstm_rest(width, H, sums, r, gate, shift, old, cell, output);
                            memcpy(to + kept_row * depth + first, output, 2 * width);
                            if (kept_row >= ends) memcpy(last + kept_row * H + first, cell, 4 * width);
                        }
                    }
                } /* all threads wait here: the next step reads what every one wrote */
                before = carried + at * H;
                at += n;
                uint16_t *other = from;
                from = to;
                to = other;
            }
            tiles_end(&kept);
        }
    }
    for (int gate = 0; gate < 4; gate++) free(packed[gate]);
    free(now);
    free(next);
    return fine;
}

/* As lstm_backward for all steps, from d_h (P, H); d_c (B, H) in and out; -> d_gates (P, 4H), d_h0 (B, H). */
int lstm_layer_backward(int steps, const int64_t *counts, int B, int H, const uint16_t *gates, const uint16_t *w,
                        const float *c0, const float *carried, const uint16_t *d_h, float *d_c, uint16_t *d_gates,
                        float *d_h0) {
    long depth = up(4 * H, DEPTH), rows = up(B, 2 * EDGE), width = up(H, 2 * EDGE), blocks = depth / DEPTH, total = 0;
    for (int step = 0; step < steps; step++) total += counts[step];
    uint16_t *packed = tiled(w, 4 * H, H, H, 1), *fed = zeros(2 * rows * depth);
    float *state = zeros(4 * rows * width);
    /* tiled() makes whole pairs of tile columns only where H fills them; one more of zeros serves the last */
    uint16_t *none = zeros(2 * depth * EDGE);
    int fine = packed && fed && state && none;
    if (fine) {
#pragma omp parallel
        {
            tiles kept __attribute__((aligned(64)));
            tiles_begin(&kept);
            long at = total;
            for (int step = steps - 1; step >= 0; step--) {
                long n = counts[step], later = step + 1 < steps ? counts[step + 1] : 0;
                at -= n;
                const float *before = step ? carried + (at - counts[step - 1]) * H : c0;
#pragma omp for schedule(static)
                for (long row = 0; row < n; row++) {
                    const uint16_t *gate = gates + (at + row) * 4 * H, *above = d_h + (at + row) * H;
                    const float *old = before + row * H, *cell = carried + (at + row) * H, *after = state + row * width;
                    float *through = d_c + row * H, has = row < later ? 1.0f : 0.0f;
                    uint16_t *out = d_gates + (at + row) * 4 * H, *next = fed + row * depth;
#pragma omp simd
                    for (long j = 0; j < H; j++) {
                        float i = widen(gate[j]), f = widen(gate[H + j]), g = widen(gate[2 * H + j]);
                        float o = widen(gate[3 * H + j]), d = widen(above[j]) + has * after[j], t = squash(cell[j]);
                        float d_cell = through[j] + d * o * (1.0f - t * t);
                        next[j] = out[j] = narrow(d_cell * g * i * (1.0f - i));
                        next[H + j] = out[H + j] = narrow(d_cell * old[j] * f * (1.0f - f));
                        next[2 * H + j] = out[2 * H + j] = narrow(d_cell * i * (1.0f - g * g));
                        next[3 * H + j] = out[3 * H + j] = narrow(d * t * o * (1.0f - o));
                        through[j] = d_cell * f;
                    }
                }
#pragma omp for schedule(static)
                for (long unit = 0; unit < width / EDGE; unit += 2) {
                    const uint16_t *w0 = packed + unit * blocks * EDGE * DEPTH;
                    const uint16_t *w1 = (unit + 1) * EDGE < up(H, EDGE) ? w0 + blocks * EDGE * DEPTH : none;
                    for (long row = 0; row < n; row += 2 * EDGE) {
                        long most = n - row < 2 * EDGE ? n - row : 2 * EDGE;
                        float *sums = state + row * width + unit * EDGE;
                        two_sums(fed + row * depth, depth, most, w0, w1, blocks, sums, sums + EDGE, width);
                    }
                }
            }
            tiles_end(&kept);
        }
        for (long row = 0; row < B; row++) memcpy(d_h0 + row * H, state + row * width, 4 * H);
        for (long row = steps ? counts[0] : 0; row < B; row++) memset(d_h0 + row * H, 0, 4 * H);
    }
    free(packed);
    free(fed);
    free(state);
    free(none);
    return fine;
}
#else
int has_lstm_layer(void) { return 0; }
#endif

#define NUMBER float
#define NAME(name) name##_f32
#define GET(x) (x)
#define PUT(x) (x)
#include __FILE__
#undef NUMBER
#undef NAME
#undef GET
#undef PUT
#define NUMBER uint16_t
#define NAME(name) name##_bf16
#define GET(x) widen(x)
#define PUT(x) narrow(x)
#include __FILE__
#undef NUMBER
#define BOTH_MADE

#else

/* AdamW for n numbers, the gradient in this format; average may be null, and so may rounded: the new weights in bf16.
 * steps: rate, beta1, beta2, 1 / (1 - beta1^t), 1 / (1 - beta2^t), decay of the average, factor of the gradient,
 * what weight decay leaves of a weight */
void NAME(adam)(long n, const NUMBER *grad, float *weights, float *first, float *second, float *average,
                uint16_t *rounded, const float *steps) {
    float rate = steps[0], beta1 = steps[1], beta2 = steps[2], up1 = steps[3], up2 = steps[4], decay = steps[5];
    float factor = steps[6], left = steps[7];
#pragma omp parallel for simd schedule(static) if (parallel : n >= PARALLEL_FROM)
    for (long at = 0; at < n; at++) {
        float g = GET(grad[at]) * factor;
        float m = first[at] = g + beta1 * (first[at] - g);
        float v = second[at] = g * g + beta2 * (second[at] - g * g);
        float w = weights[at] = weights[at] * left - rate * (m * up1) / (sqrtf(v * up2) + 1e-8f);
        if (average) average[at] = w + decay * (average[at] - w);
        if (rounded) rounded[at] = narrow(w);
    }
}

/* The sum of the squares of n numbers: by blocks, so that it does not depend on the number of threads. */
double NAME(squares)(long n, const NUMBER *x) {
    double total = 0.0, of_block[NORM_BLOCKS];
    for (long first = 0; first < n; first += (long)NORM_BLOCK * NORM_BLOCKS) {
        long left = n - first < (long)NORM_BLOCK * NORM_BLOCKS ? n - first : (long)NORM_BLOCK * NORM_BLOCKS;
        int blocks = (int)((left + NORM_BLOCK - 1) / NORM_BLOCK);
#pragma omp parallel for schedule(static) if (left >= 4 * NORM_BLOCK)
        for (int block = 0; block < blocks; block++) {
            const NUMBER *from = x + first + (long)block * NORM_BLOCK;
            long most = left - (long)block * NORM_BLOCK < NORM_BLOCK ? left - (long)block * NORM_BLOCK : NORM_BLOCK;
            double sum = 0.0;
#pragma omp simd reduction(+ : sum)
            for (long at = 0; at < most; at++) {
                double value = GET(from[at]);
                sum += value * value;
            }
            of_block[block] = sum;
        }
        for (int block = 0; block < blocks; block++) total += of_block[block];
    }
    return total;
}

/* a, b (n, 4H): what input and state bring, gates in the order i, f, g, o, to which bias (4H) is added;
 * c_before (n, H) -> gates, c, h (n, H). gates may be a itself. */
void NAME(lstm_forward)(int n, int H, const NUMBER *a, const NUMBER *b, const float *bias, const float *c_before,
                        NUMBER *gates, float *c, NUMBER *h) {
#pragma omp parallel for schedule(static) if ((long)n * H >= PARALLEL_FROM)
    for (int row = 0; row < n; row++) {
        const NUMBER *x = a + (long)row * 4 * H, *y = b + (long)row * 4 * H;
        const float *before = c_before + (long)row * H;
        NUMBER *gate = gates + (long)row * 4 * H, *output = h + (long)row * H;
        float *cell = c + (long)row * H;
#pragma omp simd
        for (int j = 0; j < H; j++) {
            float i = sigmoid(GET(x[j]) + GET(y[j]) + bias[j]);
            float f = sigmoid(GET(x[H + j]) + GET(y[H + j]) + bias[H + j]);
            float g = squash(GET(x[2 * H + j]) + GET(y[2 * H + j]) + bias[2 * H + j]);
            float o = sigmoid(GET(x[3 * H + j]) + GET(y[3 * H + j]) + bias[3 * H + j]);
            float now = f * before[j] + i * g;
            gate[j] = PUT(i);
            gate[H + j] = PUT(f);
            gate[2 * H + j] = PUT(g);
            gate[3 * H + j] = PUT(o);
            cell[j] = now;
            output[j] = PUT(o * squash(now));
        }
    }
}

/* d_h (n, H) from above, d_state (later, H) from the step after, for the first `later` rows; d_c (n, H) in and out
 * -> d_gates (n, 4H) before their functions */
void NAME(lstm_backward)(int n, int later, int H, const NUMBER *gates, const float *c_before, const float *c,
                         const NUMBER *d_h, const NUMBER *d_state, float *d_c, NUMBER *d_gates) {
#pragma omp parallel for schedule(static) if ((long)n * H >= PARALLEL_FROM)
    for (int row = 0; row < n; row++) {
        const NUMBER *gate = gates + (long)row * 4 * H, *above = d_h + (long)row * H;
        const NUMBER *after = row < later ? d_state + (long)row * H : above;
        float has = row < later ? 1.0f : 0.0f;
        const float *before = c_before + (long)row * H, *cell = c + (long)row * H;
        float *carried = d_c + (long)row * H;
        NUMBER *out = d_gates + (long)row * 4 * H;
#pragma omp simd
        for (int j = 0; j < H; j++) {
            float i = GET(gate[j]), f = GET(gate[H + j]), g = GET(gate[2 * H + j]), o = GET(gate[3 * H + j]);
            float d = GET(above[j]) + has * GET(after[j]);
            float t = squash(cell[j]);
            float d_cell = carried[j] + d * o * (1.0f - t * t);
            out[j] = PUT(d_cell * g * i * (1.0f - i));
            out[H + j] = PUT(d_cell * before[j] * f * (1.0f - f));
            out[2 * H + j] = PUT(d_cell * i * (1.0f - g * g));
            out[3 * H + j] = PUT(d * t * o * (1.0f - o));
            carried[j] = d_cell * f;
        }
    }
}

/* a, b (n, 3H): what input and state bring, gates in the order r, z, n; bias (4H): of r, z, a's n and b's n;
 * h_before (n, H) -> gates (n, 4H): r, z, n and b's n with its bias; the state in f32 (n, H) and as a NUMBER */
void NAME(gru_forward)(int n, int H, const NUMBER *a, const NUMBER *b, const float *bias, const float *h_before,
                       NUMBER *gates, float *state, NUMBER *h) {
#pragma omp parallel for schedule(static) if ((long)n * H >= PARALLEL_FROM)
    for (int row = 0; row < n; row++) {
        const NUMBER *x = a + (long)row * 3 * H, *y = b + (long)row * 3 * H;
        const float *before = h_before + (long)row * H;
        NUMBER *gate = gates + (long)row * 4 * H, *output = h + (long)row * H;
        float *now = state + (long)row * H;
#pragma omp simd
        for (int j = 0; j < H; j++) {
            float r = sigmoid(GET(x[j]) + GET(y[j]) + bias[j]);
            float z = sigmoid(GET(x[H + j]) + GET(y[H + j]) + bias[H + j]);
            float q = GET(y[2 * H + j]) + bias[3 * H + j];
            float new = squash(GET(x[2 * H + j]) + bias[2 * H + j] + r * q);
            float value = new + z * (before[j] - new);
            gate[j] = PUT(r);
            gate[H + j] = PUT(z);
            gate[2 * H + j] = PUT(new);
            gate[3 * H + j] = PUT(q);
            now[j] = value;
            output[j] = PUT(value);
        }
    }
}

/* as lstm_backward; d_carried (n, H) is the part of the state's gradient that needs no product, in and out
 * -> d_a, d_b (n, 3H) */
void NAME(gru_backward)(int n, int later, int H, const NUMBER *gates, const float *h_before, const NUMBER *d_h,
                        const NUMBER *d_state, float *d_carried, NUMBER *d_a, NUMBER *d_b) {
#pragma omp parallel for schedule(static) if ((long)n * H >= PARALLEL_FROM)
    for (int row = 0; row < n; row++) {
        const NUMBER *gate = gates + (long)row * 4 * H, *above = d_h + (long)row * H;
        const NUMBER *after = row < later ? d_state + (long)row * H : above;
        float has = row < later ? 1.0f : 0.0f;
        const float *before = h_before + (long)row * H;
        float *carried = d_carried + (long)row * H;
        NUMBER *to_a = d_a + (long)row * 3 * H, *to_b = d_b + (long)row * 3 * H;
#pragma omp simd
        for (int j = 0; j < H; j++) {
            float r = GET(gate[j]), z = GET(gate[H + j]), new = GET(gate[2 * H + j]), q = GET(gate[3 * H + j]);
            float d = carried[j] + GET(above[j]) + has * GET(after[j]);
            float d_new = d * (1.0f - z) * (1.0f - new * new);
            float d_r = d_new * q * r * (1.0f - r);
            float d_z = d * (before[j] - new) * z * (1.0f - z);
            to_a[j] = PUT(d_r);
            to_a[H + j] = PUT(d_z);
            to_a[2 * H + j] = PUT(d_new);
            to_b[j] = PUT(d_r);
            to_b[H + j] = PUT(d_z);
            to_b[2 * H + j] = PUT(d_new * r);
            carried[j] = d * z;
        }
    }
}

/* out (n, S) = q (n, D) times k (n, S, D), row by row */
void NAME(compare)(int n, int S, int D, const NUMBER *q, const NUMBER *k, NUMBER *out) {
#pragma omp parallel for schedule(static) if ((long)n * S * D >= PARALLEL_FROM)
    for (int row = 0; row < n; row++) {
        const NUMBER *query = q + (long)row * D;
        for (int s = 0; s < S; s++) {
            const NUMBER *key = k + ((long)row * S + s) * D;
            float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
            for (int d = 0; d < D; d++) sum += GET(query[d]) * GET(key[d]);
            out[(long)row * S + s] = PUT(sum);
        }
    }
}

/* out (n, D) = w (n, S) times v (n, S, D), row by row */
void NAME(read)(int n, int S, int D, const NUMBER *w, const NUMBER *v, NUMBER *out) {
#pragma omp parallel for schedule(static) if ((long)n * S * D >= PARALLEL_FROM)
    for (int row = 0; row < n; row++) {
        const NUMBER *share = w + (long)row * S, *value = v + (long)row * S * D;
        for (int first = 0; first < D; first += READ_BLOCK) { /* sums that stay in registers */
            int width = D - first < READ_BLOCK ? D - first : READ_BLOCK;
            float sums[READ_BLOCK] = {0};
            for (int s = 0; s < S; s++) {
                float weight = GET(share[s]);
                const NUMBER *from = value + (long)s * D + first;
#pragma omp simd
                for (int d = 0; d < width; d++) sums[d] += weight * GET(from[d]);
            }
            for (int d = 0; d < width; d++) out[(long)row * D + first + d] = PUT(sums[d]);
        }
    }
}

/* x (n, D) -> out (D), the sums over its rows */
void NAME(column_sums)(int n, int D, const NUMBER *x, float *out) {
#pragma omp parallel for schedule(static) if ((long)n * D >= PARALLEL_FROM)
    for (int first = 0; first < D; first += READ_BLOCK) { /* sums that stay in registers */
        int width = D - first < READ_BLOCK ? D - first : READ_BLOCK;
        float sums[READ_BLOCK] = {0};
        for (int row = 0; row < n; row++) {
            const NUMBER *from = x + (long)row * D + first;
#pragma omp simd
            for (int d = 0; d < width; d++) sums[d] += GET(from[d]);
        }
        memcpy(out + first, sums, sizeof(float) * width);
    }
}

/* products (n, V), whose sums with bias (V) are the logits, and targets (n) -> nats (n) = -log softmax at the target,
 * smoothed (n) = the loss with label smoothing, and, if `grad`, the gradient of smoothed in the place of the products */
void NAME(cross_entropy)(int n, int V, NUMBER *products, const float *bias, const int64_t *targets, float smoothing,
                         int grad, float *nats, float *smoothed) {
#pragma omp parallel for schedule(static) if ((long)n * V >= PARALLEL_FROM)
    for (int row = 0; row < n; row++) {
        NUMBER *x = products + (long)row * V;
        float top = -INFINITY, total = 0.0f, sum = 0.0f;
        int64_t target = targets[row];
#pragma omp simd reduction(max : top)
        for (int j = 0; j < V; j++) {
            float value = GET(x[j]) + bias[j];
            top = value > top ? value : top;
        }
#pragma omp simd reduction(+ : total, sum)
        for (int j = 0; j < V; j++) {
            float value = GET(x[j]) + bias[j] - top;
            total += exponential(value);
            sum += value;
        }
        float log_total = logf(total), right = GET(x[target]) + bias[target] - top;
        nats[row] = log_total - right;
        smoothed[row] = log_total - (1.0f - smoothing) * right - smoothing * (sum / V);
        if (grad) {
            float scale = 1.0f / total, even = smoothing / V;
            float at_target = exponential(right) * scale - even - (1.0f - smoothing);
#pragma omp simd
            for (int j = 0; j < V; j++) x[j] = PUT(exponential(GET(x[j]) + bias[j] - top) * scale - even);
            x[target] = PUT(at_target);
        }
    }
}

#endif

#if defined(BOTH_MADE) && !defined(NUMBER)
/* --- a whole layer over packed positions, in f32 --------------------------------------------------------------------
 *
 * Few rows by one matrix, again and again: the matrix is laid out once, and threads share its columns, so that a thread's
 * part of them stays in its own cache for all steps.
 */
#ifdef __AVX512F__
#define LANES 16
#define TALL 12 /* rows of sums that fit into the registers, two vectors each */
#else
#define LANES 8
#define TALL 6
#endif
#define COLUMNS (2 * LANES)
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* sums (ROWS, COLUMNS), rows `out` apart = x (ROWS, K), rows `stride` apart, times w (K, COLUMNS) */
#define SUMS(ROWS)                                                                                                     \
    static void sums_##ROWS(const float *x, long stride, const float *w, long K, float *sums, long out) {              \
        lanes left[ROWS], right[ROWS];                                                                                 \
        _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++) left[r] = right[r] = (lanes){0};                       \
        for (long k = 0; k < K; k++) {                                                                                 \
            lanes first = *(const lanes *)(w + k * COLUMNS), second = *(const lanes *)(w + k * COLUMNS + LANES);       \
            _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++) {                                                  \
                float one = x[r * stride + k];                                                                         \
                left[r] += one * first;                                                                                \
                right[r] += one * second;                                                                              \
            }                                                                                                          \
        }                                                                                                              \
        _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++) {                                                      \
            *(lanes *)(sums + r * out) = left[r];                                                                      \
            *(lanes *)(sums + r * out + LANES) = right[r];                                                             \
        }                                                                                                              \
    }
#if TALL == 12
SUMS(12)
#define sums_tall sums_12
#else
SUMS(6)
#define sums_tall sums_6
#endif
SUMS(4)
SUMS(2)
SUMS(1)
#undef SUMS


/* how many numbers `lay_out` writes */
long laid_out_size(long K, long N) { return (N + COLUMNS - 1) / COLUMNS * COLUMNS * K; }

/* w (K x N as w[k * row + n * column]) -> packed [N / COLUMNS][K][COLUMNS], zero where there are none */
void lay_out(long K, long N, long row, long column, const float *w, float *packed) {
#pragma omp parallel for schedule(static)
    for (long first = 0; first < N; first += COLUMNS) {
        long most = N - first < COLUMNS ? N - first : COLUMNS;
        float *out = packed + first * K;
        for (long k = 0; k < K; k++) {
            for (long n = 0; n < most; n++) out[k * COLUMNS + n] = w[k * row + (first + n) * column];
            for (long n = most; n < COLUMNS; n++) out[k * COLUMNS + n] = 0.0f;
        }
    }
}

/* out (n, N) = x (n, K) times w (K, N), which was laid out */
void laid_out_product(long n, long N, long K, const float *x, const float *w, float *out) {
#pragma omp parallel for schedule(static) if (n * N * K >= 16 * PARALLEL_FROM)
    for (long first = 0; first < N; first += COLUMNS) {
        const float *of_block = w + first * K;
        float edge[TALL * COLUMNS];
        long width = N - first < COLUMNS ? N - first : COLUMNS;
        for (long row = 0, rows; row < n; row += rows) {
            const float *from = x + row * K;
            float *to = width == COLUMNS ? out + row * N + first : edge;
            long left = n - row, stride = width == COLUMNS ? N : COLUMNS;
            rows = left >= TALL ? TALL : left >= 4 ? 4 : left >= 2 ? 2 : 1;
            if (rows == TALL)
                sums_tall(from, K, of_block, K, to, stride);
            else if (rows == 4)
                sums_4(from, K, of_block, K, to, stride);
            else if (rows == 2)
                sums_2(from, K, of_block, K, to, stride);
            else
                sums_1(from, K, of_block, K, to, stride);
            if (to == edge)
                for (long r = 0; r < rows; r++) memcpy(out + (row + r) * N + first, edge + r * COLUMNS, 4 * width);
        }
    }
}

/* All steps: counts (steps) rows of each, falling; a (P, 3H or 4H), w (3H or 4H, H), h0 and c0 (B, H) -> gates (P, 4H),
 * carried and h (P, H), last (B, H): what is carried after each row's last step. 0: no memory. */
int layer_forward(int gru, int steps, const int64_t *counts, int B, int H, const float *a, const float *w,
                  const float *bias, const float *h0, const float *c0, float *gates, float *carried, float *h,
                  float *last) {
    long width = (gru ? 3L : 4L) * H, at = 0;
    float *b = malloc(sizeof(float) * B * width), *packed = malloc(sizeof(float) * laid_out_size(H, width));
    int fine = b && packed;
    if (fine)
        lay_out(H, width, 1, H, w, packed);
    else
        steps = 0;
    for (int step = 0; step < steps; step++) {
        long n = counts[step], ends = step + 1 < steps ? counts[step + 1] : 0;
        laid_out_product(n, width, H, h0, packed, b);
        (gru ? gru_forward_f32 : lstm_forward_f32)(n, H, a + at * width, b, bias, c0, gates + at * 4 * H,
                                                   carried + at * H, h + at * H);
        memcpy(last + ends * H, carried + (at + ends) * H, sizeof(float) * (n - ends) * H);
        h0 = h + at * H;
        c0 = carried + at * H;
        at += n;
    }
    free(b);
    free(packed);
    return fine;
}

/* The gradient: w (3H or 4H, H), d_h (P, H); d_c (B, H) in and out -> d_a, d_b (P, 3H or 4H; one for an LSTM), d_h0. */
int layer_backward(int gru, int steps, const int64_t *counts, int B, int H, const float *gates, const float *w,
                   const float *c0, const float *carried, const float *d_h, float *d_c, float *d_a, float *d_b,
                   float *d_h0) {
    long width = (gru ? 3L : 4L) * H, at = 0, later = 0;
    float *packed = malloc(sizeof(float) * laid_out_size(width, H));
    if (!packed) return 0;
    lay_out(width, H, H, 1, w, packed);
    for (int step = 0; step < steps; step++) at += counts[step];
    for (int step = steps - 1; step >= 0; step--) {
        long n = counts[step];
        at -= n;
        const float *before = step ? carried + (at - counts[step - 1]) * H : c0;
        if (gru)
            gru_backward_f32(n, later, H, gates + at * 4 * H, before, d_h + at * H, d_h0, d_c, d_a + at * width,
                             d_b + at * width);
        else
            lstm_backward_f32(n, later, H, gates + at * 4 * H, before, carried + at * H, d_h + at * H, d_h0, d_c,
                              d_a + at * width);
        laid_out_product(n, H, width, d_b + at * width, packed, d_h0); /* the gradient of the step before's output */
        later = n;
    }
    memset(d_h0 + later * H, 0, sizeof(float) * (B - later) * H);
    free(packed);
    return 1;
}
#endif
