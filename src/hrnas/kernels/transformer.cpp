// A layer of the lightweight transformer, forward and backward, on a CPU (method: Lightweight transformer, 3 and 4).
//
// Post-norm: attention, residual, layer norm, feed-forward, residual, layer norm. The matrices are a few dozen rows and
// columns: called one by one they cost their calls and not their arithmetic, so a pass is one call. Tasks are images,
// then weights; sums go in one order: any number of threads gives the same bits.

#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

constexpr int kRows = 4;              // of a tile whose sums are kept in registers
constexpr int kColumns = 4;           // vectors of it
constexpr Index kThreaded = 4000000;  // multiplications from which on threads are worth their start

template <typename T, int R, int V, bool IsWhole>
inline void multiply_tile(Index inner, const T* a, Index a_row, Index a_column, const T* b, Index b_row, T* c,
                          Index c_row, int last, bool is_added) {
  constexpr int lanes = Simd<T>::lanes;
  Vector<T> sums[R][V] = {};
  for (Index k = 0; k < inner; ++k) {
    Vector<T> right[V];
    for (int v = 0; v < V; ++v) {
      const T* from = b + k * b_row + v * lanes;
      right[v] = IsWhole || v < V - 1 ? load_all(from) : load(from, last);
    }
    for (int r = 0; r < R; ++r) {
      const T left = a[r * a_row + k * a_column];
      for (int v = 0; v < V; ++v) sums[r][v] += left * right[v];
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) {
      const int count = v < V - 1 ? lanes : last;
      T* to = c + r * c_row + v * lanes;
      store(to, is_added ? load(to, count) + sums[r][v] : sums[r][v], count);
    }
  }
}

template <typename T, int V>
void multiply_columns(Index rows, Index inner, const T* a, Index a_row, Index a_column, const T* b, Index b_row, T* c,
                      Index c_row, int last, bool is_added) {
  Index row = 0;
  const bool is_whole = last == Simd<T>::lanes;
  for (; row + kRows <= rows; row += kRows) {
    (is_whole ? multiply_tile<T, kRows, V, true> : multiply_tile<T, kRows, V, false>)(
        inner, a + row * a_row, a_row, a_column, b, b_row, c + row * c_row, c_row, last, is_added);
  }
  for (; row < rows; ++row) {
    multiply_tile<T, 1, V, false>(inner, a + row * a_row, a_row, a_column, b, b_row, c + row * c_row, c_row, last,
                                  is_added);
  }
}

// c (rows, columns), or what is there and more, is a (rows, inner) @ b (inner, columns). The steps between rows and
// columns of a are free, so a may be a transposed view; b and c go along their rows.
template <typename T>
void multiply(Index rows, Index columns, Index inner, const T* a, Index a_row, Index a_column, const T* b, Index b_row,
              T* c, Index c_row, bool is_added = false) {
  constexpr int lanes = Simd<T>::lanes;
  for (Index column = 0; column < columns; column += kColumns * lanes) {
    const Index left = std::min<Index>(kColumns * lanes, columns - column);
    const int vectors = (int)divide_up(left, lanes), last = (int)(left - (vectors - 1) * lanes);
    const auto function = vectors == 1   ? multiply_columns<T, 1>
                          : vectors == 2 ? multiply_columns<T, 2>
                          : vectors == 3 ? multiply_columns<T, 3>
                                         : multiply_columns<T, 4>;
    function(rows, inner, a, a_row, a_column, b + column, b_row, c + column, c_row, last, is_added);
  }
}

// Return a (rows, columns) as (columns, rows).
template <typename T>
std::vector<T> transposed(const T* a, Index a_row, Index rows, Index columns) {
  std::vector<T> out(rows * columns);
  for (Index row = 0; row < rows; ++row) {
    for (Index column = 0; column < columns; ++column) out[column * rows + row] = a[row * a_row + column];
  }
  return out;
}

template <typename T>
T sum_of(const Vector<T>& values) {
  T sum = 0;
  for (int lane = 0; lane < Simd<T>::lanes; ++lane) sum += values[lane];
  return sum;
}

// Weights as torch's Linear has them, (out, in); norms' scales and shifts (D).
template <typename T>
struct Weights {
  const T *query_key_value, *out, *scale1, *shift1, *first, *second, *scale2, *shift2;
};

// What dropout multiplies by; null where nothing is dropped. weights: (B * P, N, N).
template <typename T>
struct Masks {
  const T *mixed, *hidden, *output, *weights;
};

// batch, tokens, width, heads; queries: null where tokens attend to themselves, else (N, D), those of every image.
template <typename T>
struct Layer {
  Index batch, tokens, width, heads;
  T eps;
  const T *x, *queries, *key_bias;
  Weights<T> weights;
  Masks<T> masks;

  Index part() const { return width / heads; }
  Index of_image() const { return tokens * width; }
  bool is_threaded() const { return batch > 1 && batch * tokens * width * (6 * width + 2 * tokens) > kThreaded; }
};

// What a forward pass leaves for the backward one, in one block of memory.
template <typename T>
struct Kept {
  T *query, *key, *value;  // (B, N, D); query with queries (N, D)
  T* shares;               // (B, P, N, N), softmax's
  T* mixed;                // what the heads mix, (B, N, D)
  T *normal1, *hidden, *normal2;  // (B, N, D)
  T *rstd1, *rstd2;               // (B, N)

  Kept(const Layer<T>& layer, T* memory) {
    const Index all = layer.batch * layer.of_image();
    const auto take = [&memory](Index count) {
      T* taken = memory;
      memory += count;
      return taken;
    };
    query = take(layer.queries ? layer.of_image() : all);
    key = take(all);
    value = take(all);
    shares = take(layer.batch * layer.heads * layer.tokens * layer.tokens);
    mixed = take(all);
    normal1 = take(all);
    hidden = take(all);
    normal2 = take(all);
    rstd1 = take(layer.batch * layer.tokens);
    rstd2 = take(layer.batch * layer.tokens);
  }
};

// out = (x - mean) * rstd * scale + shift, row by row; keeps normalised values and rstd.
template <typename T>
void layer_norm(const Layer<T>& layer, const T* x, const T* scale, const T* shift, T* normal, T* rstd, T* out) {
  constexpr int lanes = Simd<T>::lanes;
  const Index width = layer.width;
  for (Index row = 0; row < layer.tokens; ++row, x += width, normal += width, out += width) {
    Vector<T> sum = {}, squares = {};
    for (Index at = 0; at < width; at += lanes) sum += load(x + at, (int)std::min<Index>(lanes, width - at));
    const T mean = sum_of<T>(sum) / (T)width;
    for (Index at = 0; at < width; at += lanes) {
      const int count = (int)std::min<Index>(lanes, width - at);
      const Vector<T> moved = load(x + at, count) - mean;
      store(normal + at, moved, count);
      const Vector<T> inside = load(normal + at, count);  // without the lanes beyond the row
      squares += inside * inside;
    }
    rstd[row] = 1 / std::sqrt(sum_of<T>(squares) / (T)width + layer.eps);
    for (Index at = 0; at < width; ++at) {
      normal[at] *= rstd[row];
      out[at] = normal[at] * scale[at] + shift[at];
    }
  }
}

// The gradient of what a layer norm normalised, from that of what it put out.
template <typename T>
void layer_norm_backward(const Layer<T>& layer, const T* gradient, const T* scale, const T* normal, const T* rstd,
                         T* out) {
  constexpr int lanes = Simd<T>::lanes;
  const Index width = layer.width;
  for (Index row = 0; row < layer.tokens; ++row, gradient += width, normal += width, out += width) {
    Vector<T> sum = {}, product = {};
    for (Index at = 0; at < width; at += lanes) {
      const int count = (int)std::min<Index>(lanes, width - at);
      const Vector<T> scaled = load(gradient + at, count) * load(scale + at, count);
      sum += scaled;
      product += scaled * load(normal + at, count);
    }
    const T mean = sum_of<T>(sum) / (T)width, slope = sum_of<T>(product) / (T)width;
    for (Index at = 0; at < width; ++at) {
      out[at] = rstd[row] * (gradient[at] * scale[at] - mean - normal[at] * slope);
    }
  }
}

// One image's attention: scores, softmax, what it mixes.
template <typename T>
void attend(const Layer<T>& layer, const Kept<T>& kept, Index image) {
  const Index tokens = layer.tokens, width = layer.width, part = layer.part();
  const T scale = 1 / std::sqrt((T)part);
  std::vector<T> weights(tokens * tokens);
  for (Index head = 0; head < layer.heads; ++head) {
    const Index at = image * layer.of_image() + head * part, number = (image * layer.heads + head) * tokens * tokens;
    const T* query = kept.query + (layer.queries ? head * part : at);
    T* shares = kept.shares + number;
    const std::vector<T> keys = transposed(kept.key + at, width, tokens, part);
    multiply(tokens, tokens, part, query, width, (Index)1, keys.data(), tokens, shares, tokens);
    for (Index row = 0; row < tokens; ++row) {
      T* scores = shares + row * tokens;
      for (Index key = 0; key < tokens; ++key) {
        scores[key] = scores[key] * scale + (layer.key_bias ? layer.key_bias[key] : 0);
      }
      const T largest = *std::max_element(scores, scores + tokens);
      T sum = 0;
      for (Index key = 0; key < tokens; ++key) sum += scores[key] = std::exp(scores[key] - largest);
      for (Index key = 0; key < tokens; ++key) scores[key] /= sum;
    }
    const T* mask = layer.masks.weights ? layer.masks.weights + number : nullptr;
    for (Index pair = 0; pair < tokens * tokens; ++pair) weights[pair] = shares[pair] * (mask ? mask[pair] : 1);
    multiply(tokens, part, tokens, weights.data(), tokens, (Index)1, kept.value + at, width, kept.mixed + at, width);
  }
}

template <typename T>
void run_forward(const Layer<T>& layer, T* memory, T* out) {
  const Index tokens = layer.tokens, width = layer.width, image_size = layer.of_image();
  const Kept<T> kept(layer, memory);
  const Weights<T>& weights = layer.weights;
  const Index square = width * width;
  const std::vector<T> to_query = transposed(weights.query_key_value, width, width, width),
                       to_key = transposed(weights.query_key_value + square, width, width, width),
                       to_value = transposed(weights.query_key_value + 2 * square, width, width, width),
                       to_out = transposed(weights.out, width, width, width),
                       to_hidden = transposed(weights.first, width, width, width),
                       to_output = transposed(weights.second, width, width, width);
  const auto map = [&](const T* x, const std::vector<T>& weight, T* to) {
    multiply(tokens, width, width, x, width, (Index)1, weight.data(), width, to, width);
  };
  if (layer.queries) map(layer.queries, to_query, kept.query);
#pragma omp parallel for schedule(static) if (layer.is_threaded())
  for (Index image = 0; image < layer.batch; ++image) {
    const Index at = image * image_size;
    std::vector<T> sum(image_size), active(image_size);
    if (!layer.queries) map(layer.x + at, to_query, kept.query + at);
    map(layer.x + at, to_key, kept.key + at);
    map(layer.x + at, to_value, kept.value + at);
    attend(layer, kept, image);
    map(kept.mixed + at, to_out, sum.data());
    for (Index i = 0; i < image_size; ++i) {
      sum[i] = layer.x[at + i] + sum[i] * (layer.masks.mixed ? layer.masks.mixed[at + i] : 1);
    }
    layer_norm(layer, sum.data(), weights.scale1, weights.shift1, kept.normal1 + at, kept.rstd1 + image * tokens,
               active.data());
    map(active.data(), to_hidden, kept.hidden + at);
    for (Index i = 0; i < image_size; ++i) {
      T& hidden = kept.hidden[at + i];
      hidden = hidden <= 0 ? 0 : hidden;  // NaN stays
      sum[i] = hidden * (layer.masks.hidden ? layer.masks.hidden[at + i] : 1);
    }
    T* to = out + at;
    map(sum.data(), to_output, to);
    for (Index i = 0; i < image_size; ++i) {
      sum[i] = active[i] + to[i] * (layer.masks.output ? layer.masks.output[at + i] : 1);
    }
    layer_norm(layer, sum.data(), weights.scale2, weights.shift2, kept.normal2 + at, kept.rstd2 + image * tokens, to);
  }
}

// Gradients of the weights, as torch's Linear has them, and of norms.
template <typename T>
struct Gradients {
  T *x, *queries, *query_key_value, *out, *scale1, *shift1, *first, *second, *scale2, *shift2;
};

// One image's attention backward: from the gradient of what is mixed to those of query, key and value.
template <typename T>
void attend_backward(const Layer<T>& layer, const Kept<T>& kept, Index image, const T* gradient, T* query, T* key,
                     T* value) {
  const Index tokens = layer.tokens, width = layer.width, part = layer.part(), pairs = tokens * tokens;
  const T scale = 1 / std::sqrt((T)part);
  std::vector<T> weights(pairs), of_scores(pairs);
  for (Index head = 0; head < layer.heads; ++head) {
    const Index own = head * part, at = image * layer.of_image() + own;
    const T* shares = kept.shares + (image * layer.heads + head) * pairs;
    const T* mask = layer.masks.weights ? layer.masks.weights + (image * layer.heads + head) * pairs : nullptr;
    const std::vector<T> values = transposed(kept.value + at, width, tokens, part);
    multiply(tokens, tokens, part, gradient + own, width, (Index)1, values.data(), tokens, of_scores.data(), tokens);
    for (Index pair = 0; pair < pairs; ++pair) {
      weights[pair] = shares[pair] * (mask ? mask[pair] : 1);
      of_scores[pair] *= mask ? mask[pair] : 1;
    }
    multiply(tokens, part, tokens, weights.data(), (Index)1, tokens, gradient + own, width, value + own, width);
    for (Index row = 0; row < tokens; ++row) {
      const T* share = shares + row * tokens;
      T *of_row = of_scores.data() + row * tokens, sum = 0;
      for (Index other = 0; other < tokens; ++other) sum += of_row[other] * share[other];
      for (Index other = 0; other < tokens; ++other) of_row[other] = scale * share[other] * (of_row[other] - sum);
    }
    const T* queries = kept.query + (layer.queries ? own : at);
    multiply(tokens, part, tokens, of_scores.data(), tokens, (Index)1, kept.key + at, width, query + own, width);
    multiply(tokens, part, tokens, of_scores.data(), (Index)1, tokens, queries, width, key + own, width);
  }
}

template <typename T>
void run_backward(const Layer<T>& layer, T* memory, const T* gradient, const Gradients<T>& out) {
  constexpr int lanes = Simd<T>::lanes;
  const Index tokens = layer.tokens, width = layer.width, image_size = layer.of_image();
  const Index rows = layer.batch * tokens, all = rows * width, square = width * width;
  const Kept<T> kept(layer, memory);
  const Weights<T>& weights = layer.weights;
  // Of what is behind each matrix, and what went into it where that is not kept.
  std::vector<T> block(8 * all);
  T *of_output = block.data(), *of_hidden = of_output + all, *of_attended = of_hidden + all, *of_query = of_attended + all,
    *of_key = of_query + all, *of_value = of_key + all, *active = of_value + all, *of_active = active + all;
  const auto map_back = [&](const T* gradient_rows, const T* weight, T* to, bool is_added) {
    multiply(tokens, width, width, gradient_rows, width, (Index)1, weight, width, to, width, is_added);
  };
#pragma omp parallel for schedule(static) if (layer.is_threaded())
  for (Index image = 0; image < layer.batch; ++image) {
    const Index at = image * image_size, row = image * tokens;
    std::vector<T> of_sum(image_size), of_mixed(image_size);
    layer_norm_backward(layer, gradient + at, weights.scale2, kept.normal2 + at, kept.rstd2 + row, of_sum.data());
    for (Index i = 0; i < image_size; ++i) {
      of_output[at + i] = of_sum[i] * (layer.masks.output ? layer.masks.output[at + i] : 1);
    }
    map_back(of_output + at, weights.second, of_hidden + at, false);
    for (Index i = 0; i < image_size; ++i) {
      const T dropped = of_hidden[at + i] * (layer.masks.hidden ? layer.masks.hidden[at + i] : 1);
      of_hidden[at + i] = kept.hidden[at + i] <= 0 ? 0 : dropped;
    }
    map_back(of_hidden + at, weights.first, of_sum.data(), true);  // with the residual's
    for (Index i = 0; i < image_size; ++i) {
      of_active[at + i] = of_sum[i];
      active[at + i] = kept.normal1[at + i] * weights.scale1[i % width] + weights.shift1[i % width];
    }
    layer_norm_backward(layer, of_active + at, weights.scale1, kept.normal1 + at, kept.rstd1 + row, out.x + at);
    for (Index i = 0; i < image_size; ++i) {
      of_attended[at + i] = out.x[at + i] * (layer.masks.mixed ? layer.masks.mixed[at + i] : 1);
    }
    map_back(of_attended + at, weights.out, of_mixed.data(), false);
    attend_backward(layer, kept, image, of_mixed.data(), of_query + at, of_key + at, of_value + at);
    if (!layer.queries) map_back(of_query + at, weights.query_key_value, out.x + at, true);
    map_back(of_key + at, weights.query_key_value + square, out.x + at, true);
    map_back(of_value + at, weights.query_key_value + 2 * square, out.x + at, true);
  }
  std::vector<T> dropped;
  if (layer.masks.hidden) {
    dropped.resize(all);
    for (Index i = 0; i < all; ++i) dropped[i] = kept.hidden[i] * layer.masks.hidden[i];
  }
  if (layer.queries) {  // one query for every image: its gradients add up
    for (Index image = 1; image < layer.batch; ++image) {
      for (Index i = 0; i < image_size; ++i) of_query[i] += of_query[image * image_size + i];
    }
    map_back(of_query, weights.query_key_value, out.queries, false);
  }
  struct Product {
    const T *gradient, *input;
    T* to;
    Index rows;
  };
  const Product products[] = {
      {of_query, layer.queries ? layer.queries : layer.x, out.query_key_value, layer.queries ? tokens : rows},
      {of_key, layer.x, out.query_key_value + square, rows},
      {of_value, layer.x, out.query_key_value + 2 * square, rows},
      {of_attended, kept.mixed, out.out, rows},
      {of_hidden, active, out.first, rows},
      {of_output, layer.masks.hidden ? dropped.data() : kept.hidden, out.second, rows},
  };
#pragma omp parallel for schedule(static) if (layer.is_threaded())
  for (int number = 0; number < 6; ++number) {
    const Product& one = products[number];
    multiply(width, width, one.rows, one.gradient, (Index)1, width, one.input, width, one.to, width);
  }
  for (Index start = 0; start < width; start += lanes) {
    const int count = (int)std::min<Index>(lanes, width - start);
    Vector<T> scale1 = {}, shift1 = {}, scale2 = {}, shift2 = {};
    for (Index at = start; at < all; at += width) {
      const Vector<T> first = load(of_active + at, count), second = load(gradient + at, count);
      scale1 += first * load(kept.normal1 + at, count);
      shift1 += first;
      scale2 += second * load(kept.normal2 + at, count);
      shift2 += second;
    }
    store(out.scale1 + start, scale1, count);
    store(out.shift1 + start, shift1, count);
    store(out.scale2 + start, scale2, count);
    store(out.shift2 + start, shift2, count);
  }
}

}  // namespace

// shape: batch, tokens, width, heads. weights and out: in the order of their structs; inputs: x, queries, key bias.
#define HRNAS_LAYER(T)                                                                                             \
  const Layer<T> layer = {shape[0],  shape[1],  shape[2],   shape[3],                                              \
                          (T)eps,    inputs[0], inputs[1],  inputs[2],                                             \
                          {weights[0], weights[1], weights[2], weights[3], weights[4], weights[5], weights[6],     \
                           weights[7]},                                                                            \
                          {masks[0], masks[1], masks[2], masks[3]}};
#define HRNAS_EXPORT(T, TYPE)                                                                                      \
  extern "C" void layer_##TYPE(const Index* shape, double eps, const T* const* inputs, const T* const* weights,    \
                               const T* const* masks, T* memory, T* out) {                                         \
    HRNAS_LAYER(T)                                                                                                 \
    run_forward(layer, memory, out);                                                                               \
  }                                                                                                                \
  extern "C" void layer_backward_##TYPE(const Index* shape, double eps, const T* const* inputs,                    \
                                        const T* const* weights, const T* const* masks, T* memory,                 \
                                        const T* gradient, T* const* out) {                                        \
    HRNAS_LAYER(T)                                                                                                 \
    run_backward(layer, memory, gradient,                                                                          \
                 {out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7], out[8], out[9]});                \
  }

HRNAS_EXPORT(float, float32)
HRNAS_EXPORT(double, float64)
