/* What a recurrent step does between its matrix products, and a softmax with its gradient, each in one pass.
 *
 * The file includes itself: once for f32, once for bf16 (bit patterns in uint16_t; sums are f32 in both).
 * Rows are independent and every row is one thread's, so results do not depend on the number of threads.
 * Built by kernels.py for the machine it runs on; OpenMP's symbols are PyTorch's, so that there is one thread pool.
 */
#ifndef NUMBER

#include <math.h>
#include <stdint.h>
#include <string.h>

#define PARALLEL_FROM 8192 /* numbers below which waking a second thread costs more than it saves */

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
