/* What a recurrent step does between its matrix products, and a softmax with its gradient, each in one pass.
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

static inline float exponential(float x) { /* relative error below 2e-7 (Cephes expf); saturates at +-87 */
    x = x < -87.0f ? -87.0f : x;
    x = x > 87.0f ? 87.0f : x;
    float n = rintf(x * 1.44269504088896341f);
    float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
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

/* AdamW for n numbers; average may be null.
 * steps: rate, beta1, beta2, 1 / (1 - beta1^t), 1 / (1 - beta2^t), decay of the average, factor of the gradient,
 * what weight decay leaves of a weight */
void adam(long n, const float *grad, float *weights, float *first, float *second, float *average, const float *steps) {
    float rate = steps[0], beta1 = steps[1], beta2 = steps[2], up1 = steps[3], up2 = steps[4], decay = steps[5];
    float factor = steps[6], left = steps[7];
#pragma omp parallel for simd schedule(static) if (parallel : n >= PARALLEL_FROM)
    for (long at = 0; at < n; at++) {
        float g = grad[at] * factor;
        float m = first[at] = g + beta1 * (first[at] - g);
        float v = second[at] = g * g + beta2 * (second[at] - g * g);
        float w = weights[at] = weights[at] * left - rate * (m * up1) / (sqrtf(v * up2) + 1e-8f);
        if (average) average[at] = w + decay * (average[at] - w);
    }
}

/* The sum of the squares of n numbers: by blocks, so that it does not depend on the number of threads. */
#define NORM_BLOCK 16384
#define NORM_BLOCKS 512
double squares(long n, const float *x) {
    double total = 0.0, of_block[NORM_BLOCKS];
    for (long first = 0; first < n; first += (long)NORM_BLOCK * NORM_BLOCKS) {
        long left = n - first < (long)NORM_BLOCK * NORM_BLOCKS ? n - first : (long)NORM_BLOCK * NORM_BLOCKS;
        int blocks = (int)((left + NORM_BLOCK - 1) / NORM_BLOCK);
#pragma omp parallel for schedule(static) if (left >= 4 * NORM_BLOCK)
        for (int block = 0; block < blocks; block++) {
            const float *from = x + first + (long)block * NORM_BLOCK;
            long most = left - (long)block * NORM_BLOCK < NORM_BLOCK ? left - (long)block * NORM_BLOCK : NORM_BLOCK;
            double sum = 0.0;
#pragma omp simd reduction(+ : sum)
            for (long at = 0; at < most; at++) sum += (double)from[at] * from[at];
            of_block[block] = sum;
        }
        for (int block = 0; block < blocks; block++) total += of_block[block];
    }
    return total;
}

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

/* scores (n, S) = sum over A of v tanh(q + k) where mask (n, S) is true, else 0; q (n, A), k (n, S, A), v (A) */
void tanh_scores(int n, int S, int A, const float *q, const float *k, const float *v, const uint8_t *mask,
                 float *scores) {
#pragma omp parallel for schedule(static) if ((long)n * S * A >= PARALLEL_FROM)
    for (int row = 0; row < n; row++) {
        const float *query = q + (long)row * A;
        for (int s = 0; s < S; s++) {
            const float *key = k + ((long)row * S + s) * A;
            float sum = 0.0f;
            if (mask[(long)row * S + s]) {
#pragma omp simd reduction(+ : sum)
                for (int a = 0; a < A; a++) sum += v[a] * squash(query[a] + key[a]);
            }
            scores[(long)row * S + s] = sum;
        }
    }
}

/* from d_scores (n, S): d_q (n, A) is set; d_k (n, S, A) and d_v (n, A), one row each, are added to */
void tanh_scores_backward(int n, int S, int A, const float *q, const float *k, const float *v, const uint8_t *mask,
                          const float *d_scores, float *d_q, float *d_k, float *d_v) {
#pragma omp parallel for schedule(static) if ((long)n * S * A >= PARALLEL_FROM)
    for (int row = 0; row < n; row++) {
        const float *query = q + (long)row * A;
        float *to_query = d_q + (long)row * A, *to_score = d_v + (long)row * A;
        memset(to_query, 0, sizeof(float) * A);
        for (int s = 0; s < S; s++) {
            if (!mask[(long)row * S + s]) continue;
            const float *key = k + ((long)row * S + s) * A;
            float *to_key = d_k + ((long)row * S + s) * A;
            float grad = d_scores[(long)row * S + s];
#pragma omp simd
            for (int a = 0; a < A; a++) {
                float t = squash(query[a] + key[a]);
                float slope = grad * v[a] * (1.0f - t * t);
                to_key[a] += slope;
                to_query[a] += slope;
                to_score[a] += grad * t;
            }
        }
    }
}

/* --- a whole LSTM layer over packed positions, in bf16, with AMX -------------------------------------------------
 *
 * Threads share the units, not the rows: a thread's part of the weights stays in its own cache for all steps, and a
 * unit's four gates are one thread's, so the products of a step flow into its functions without leaving it.
 */
int has_lstm_layer(void);

#ifdef __AMX_BF16__
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EDGE 16  /* rows and f32 columns of a tile */
#define DEPTH 32 /* bf16 columns of a tile */

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t column_bytes[16];
    uint8_t rows[16];
} tiles;

int has_lstm_layer(void) { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0; }

static void tiles_begin(tiles *before) { /* whoever used the tiles before finds them as they were */
    tiles ours;
    memset(&ours, 0, sizeof ours);
    ours.palette = 1;
    for (int tile = 0; tile < 8; tile++) ours.column_bytes[tile] = 64, ours.rows[tile] = EDGE;
    _tile_storeconfig(before);
    _tile_loadconfig(&ours);
}

static void tiles_end(const tiles *before) {
    if (before->palette)
        _tile_loadconfig(before);
    else
        _tile_release();
}

static inline long up(long value, long grain) { return (value + grain - 1) / grain * grain; }

static void *zeros(size_t bytes) {
    void *memory = aligned_alloc(64, up(bytes, 64));
    if (memory) memset(memory, 0, up(bytes, 64));
    return memory;
}

/* weights (K x N as w[k * row + n * column]) as tiles [N / 16][K / 32][16 pairs of k][16 n][2], zero where there are none */
static uint16_t *tiled(const uint16_t *w, long K, long N, long row, long column) {
    long depth = up(K, DEPTH), width = up(N, EDGE);
    uint16_t *packed = zeros(2 * depth * width);
    if (!packed) return packed;
#pragma omp parallel for schedule(static)
    for (long tile = 0; tile < width / EDGE * (depth / DEPTH); tile++) {
        long first_n = tile / (depth / DEPTH) * EDGE, first_k = tile % (depth / DEPTH) * DEPTH;
        uint16_t *out = packed + tile * EDGE * DEPTH;
        for (long k = first_k; k < first_k + DEPTH && k < K; k++)
            for (long n = first_n; n < first_n + EDGE && n < N; n++)
                out[(k - first_k) / 2 * DEPTH + (n - first_n) * 2 + k % 2] = w[k * row + n * column];
    }
    return packed;
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

/* The functions of one row's units, `width` from the first on; their sums are row r of the tiles of each gate. */
static inline __attribute__((always_inline)) void lstm_units(long width, long H, float (*sums)[2 * EDGE][EDGE], long r,
                                                             uint16_t *gate, const float *shift, const float *old,
                                                             float *cell, uint16_t *output) {
#pragma omp simd
    for (long j = 0; j < width; j++) {
        float i = sigmoid(widen(gate[j]) + sums[0][r][j] + shift[j]);
        float f = sigmoid(widen(gate[H + j]) + sums[1][r][j] + shift[H + j]);
        float g = squash(widen(gate[2 * H + j]) + sums[2][r][j] + shift[2 * H + j]);
        float o = sigmoid(widen(gate[3 * H + j]) + sums[3][r][j] + shift[3 * H + j]);
        float c = f * old[j] + i * g;
        gate[j] = narrow(i);
        gate[H + j] = narrow(f);
        gate[2 * H + j] = narrow(g);
        gate[3 * H + j] = narrow(o);
        cell[j] = c;
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
                        for (int pair = 0; pair < 4; pair += 2)
                            four_tiles(from + row * depth, depth, packed[pair] + weights, packed[pair + 1] + weights,
                                       blocks, sums[pair][0], sums[pair + 1][0], sums[pair][EDGE],
                                       sums[pair + 1][EDGE], EDGE);
                        long most = n - row < 2 * EDGE ? n - row : 2 * EDGE;
                        for (long r = 0; r < most; r++) {
                            long place = at + row + r, kept_row = row + r;
                            const float *old = before + kept_row * H + first, *shift = bias + first;
                            uint16_t *gate = a + place * 4 * H + first, *output = h + place * H + first;
                            float *cell = carried + place * H + first;
                            if (width == EDGE) /* a known width makes one vector of it */
                                lstm_units(EDGE, H, sums, r, gate, shift, old, cell, output);
                            else
                                lstm_units(width, H, sums, r, gate, shift, old, cell, output);
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
                        float *out = state + row * width + unit * EDGE;
                        four_tiles(fed + row * depth, depth, w0, w1, blocks, out, out + EDGE, out + EDGE * width,
                                   out + EDGE * width + EDGE, width);
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
/* --- a whole layer over packed positions, in f32, with a product of PyTorch's -------------------------------------- */

typedef void (*sgemm_of_fortran)(const char *, const char *, const int *, const int *, const int *, const float *,
                                 const float *, const int *, const float *, const int *, const float *, float *,
                                 const int *);
static sgemm_of_fortran sgemm;

void use_sgemm(void *function) { sgemm = (sgemm_of_fortran)function; }

/* out (n, N) = x (n, K) times w (K, N) */
static void product(int n, int N, int K, const float *x, const float *w, float *out) {
    float one = 1.0f, zero = 0.0f;
    sgemm("N", "N", &N, &n, &K, &one, w, &N, x, &K, &zero, out, &N);
}

/* All steps: counts (steps) rows of each, falling; a (P, 3H or 4H), w (H, 3H or 4H), h0 and c0 (B, H) -> gates (P, 4H),
 * carried and h (P, H), last (B, H): what is carried after each row's last step. 0: no memory. */
int layer_forward(int gru, int steps, const int64_t *counts, int B, int H, const float *a, const float *w,
                  const float *bias, const float *h0, const float *c0, float *gates, float *carried, float *h,
                  float *last) {
    long width = (gru ? 3L : 4L) * H, at = 0;
    float *b = malloc(sizeof(float) * B * width);
    if (!b) return 0;
    for (int step = 0; step < steps; step++) {
        long n = counts[step], ends = step + 1 < steps ? counts[step + 1] : 0;
        product(n, width, H, h0, w, b);
        (gru ? gru_forward_f32 : lstm_forward_f32)(n, H, a + at * width, b, bias, c0, gates + at * 4 * H,
                                                   carried + at * H, h + at * H);
        memcpy(last + ends * H, carried + (at + ends) * H, sizeof(float) * (n - ends) * H);
        h0 = h + at * H;
        c0 = carried + at * H;
        at += n;
    }
    free(b);
    return 1;
}

/* The gradient: w (3H or 4H, H), d_h (P, H); d_c (B, H) in and out -> d_a, d_b (P, 3H or 4H; one for an LSTM), d_h0. */
int layer_backward(int gru, int steps, const int64_t *counts, int B, int H, const float *gates, const float *w,
                   const float *c0, const float *carried, const float *d_h, float *d_c, float *d_a, float *d_b,
                   float *d_h0) {
    long width = (gru ? 3L : 4L) * H, at = 0, later = 0;
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
        product(n, H, width, d_b + at * width, w, d_h0); /* the gradient of the step before's output */
        later = n;
    }
    memset(d_h0 + later * H, 0, sizeof(float) * (B - later) * H);
    return 1;
}
#endif
