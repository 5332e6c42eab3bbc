// Mixed depthwise convolution with batch norm and ReLU on both sides, forward and backward, on a CPU.
//
// Maps are (N, H, W, C), channels innermost. A task is an image, a chunk of channels of one kernel size, and a band of
// rows. It keeps the rows that a kernel sees, normalised and activated, in a ring of padded rows that stays in cache:
// nothing of what torch would write between convolution, norm and activation goes through memory. How the work is
// divided depends on shapes alone, and sums of tasks are added in their order: any number of threads gives the same bits.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

using Index = std::int64_t;

constexpr int kVectors = 4;    // of a chunk
constexpr Index kBand = 32;    // rows of a task
constexpr int kTile = 8;       // columns whose sums are kept in registers
constexpr Index kPixels = 256; // at least, of a task that goes through a map element by element
constexpr Index kParts = 64;   // at most, of such a map
constexpr Index kFlush = 64;   // pixels after which float sums are added to double ones

template <typename T>
struct Simd {
  static constexpr int lanes = 64 / sizeof(T);
  typedef T Vector __attribute__((vector_size(64)));
  typedef T Loose __attribute__((vector_size(64), aligned(sizeof(T)), may_alias));
};

template <typename T>
using Vector = typename Simd<T>::Vector;

template <typename T>
inline Vector<T> load_all(const T* from) {
  return *reinterpret_cast<const typename Simd<T>::Loose*>(from);
}

template <typename T>
inline void store_all(T* to, Vector<T> value) {
  *reinterpret_cast<typename Simd<T>::Loose*>(to) = value;
}

// The first `count` lanes; the others are zero, and are not touched in memory.
template <typename T>
inline Vector<T> load(const T* from, int count) {
  if (count >= Simd<T>::lanes) return load_all(from);
  Vector<T> value = {};
  for (int lane = 0; lane < count; ++lane) value[lane] = from[lane];
  return value;
}

template <typename T>
inline void store(T* to, Vector<T> value, int count) {
  if (count >= Simd<T>::lanes) return store_all(to, value);
  for (int lane = 0; lane < count; ++lane) to[lane] = value[lane];
}

#if defined(__AVX512F__)
template <>
inline Vector<float> load(const float* from, int count) {
  if (count >= 16) return load_all(from);
  return (Vector<float>)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
}

template <>
inline void store(float* to, Vector<float> value, int count) {
  if (count >= 16) return store_all(to, value);
  _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)value);
}
#endif

// What is not positive becomes zero; NaN stays, so that a diverging run shows.
template <typename T>
inline Vector<T> where_active(Vector<T> gate, Vector<T> value) {
  const Vector<T> zero = {};
  return gate <= zero ? zero : value;
}

template <typename T>
inline Vector<T> relu(Vector<T> value) {
  return where_active<T>(value, value);
}

template <typename T>
inline void add_to(double* sums, Vector<T> value) {
  for (int lane = 0; lane < Simd<T>::lanes; ++lane) sums[lane] += (double)value[lane];
}

inline Index divide_up(Index value, Index by) { return (value + by - 1) / by; }

// Zeroed memory on a boundary of 64 bytes.
template <typename T>
class Scratch {
 public:
  explicit Scratch(Index vectors) : values_(nullptr) {
    const std::size_t bytes = std::max<Index>(vectors, 1) * 64;
    values_ = static_cast<Vector<T>*>(std::aligned_alloc(64, bytes));
    std::memset(static_cast<void*>(values_), 0, bytes);
  }
  ~Scratch() { std::free(values_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  Vector<T>* get() { return values_; }

 private:
  Vector<T>* values_;
};

template <typename T>
struct Group {
  int size;
  Index first;      // channel
  Index count;      // of channels
  const T* weight;  // (count, size, size)
  Index offset;     // of its weights among those of all groups
};

struct Chunk {
  int group;
  Index first;  // channel
  int count;    // of channels
};

// Maps and kernels of one call. Rows of `x` are height x width, of `d` out_height x out_width.
template <typename T>
struct Layer {
  Index images, height, width, channels, stride, out_height, out_width;
  std::vector<Group<T>> groups;
  std::vector<Chunk> chunks;
  Index num_weights = 0;

  Layer(const Index* shape, Index num_groups, const Index* sizes, const Index* counts, const T* const* weights)
      : images(shape[0]), height(shape[1]), width(shape[2]), channels(shape[3]), stride(shape[4]) {
    out_height = divide_up(height, stride);
    out_width = divide_up(width, stride);
    Index first = 0;
    for (Index number = 0; number < num_groups; ++number) {
      const int size = (int)sizes[number];
      groups.push_back({size, first, counts[number], weights[number], num_weights});
      const Index widest = kVectors * Simd<T>::lanes;
      for (Index start = 0; start < counts[number]; start += widest) {
        chunks.push_back({(int)number, first + start, (int)std::min(widest, counts[number] - start)});
      }
      num_weights += counts[number] * size * size;
      first += counts[number];
    }
  }
};

// The rows a kernel sees: `size` of them, by the row's number; each row has `vectors` x `columns` vectors.
template <typename T>
class Ring {
 public:
  Ring(int size, int vectors, Index columns)
      : size_(size), vectors_(vectors), columns_(columns), scratch_((Index)size * vectors * columns), rows_(size, -9999),
        is_zero_(size, true) {}

  Vector<T>* row(Index number) { return scratch_.get() + slot(number) * vectors_ * columns_; }
  bool is_zero(Index number) const { return is_zero_[slot(number)]; }

  // Make the row the given number's; true when the caller must fill it.
  bool take(Index number, bool is_inside) {
    const Index at = slot(number);
    if (rows_[at] == number) return false;
    rows_[at] = number;
    if (!is_inside && !is_zero_[at]) {
      std::memset(static_cast<void*>(row(number)), 0, (std::size_t)vectors_ * columns_ * 64);
    }
    is_zero_[at] = !is_inside;
    return is_inside;
  }

 private:
  Index slot(Index number) const { return ((number % size_) + size_) % size_; }
  int size_, vectors_;
  Index columns_;
  Scratch<T> scratch_;
  std::vector<Index> rows_;
  std::vector<char> is_zero_;
};

// Per-channel values of a chunk, as vectors.
template <typename T>
struct Channels {
  Vector<T> values[kVectors];
  Channels(const T* all, const Chunk& chunk) {
    for (int v = 0; v < kVectors; ++v) {
      const int left = chunk.count - v * Simd<T>::lanes;
      values[v] = left > 0 ? load(all + chunk.first + v * Simd<T>::lanes, left) : Vector<T>{};
    }
  }
  Vector<T> operator[](int v) const { return values[v]; }
};

// Weights of a chunk as (vector, tap) vectors; flipped for the gradient of the input.
template <typename T>
void gather_weights(const Group<T>& group, const Chunk& chunk, bool is_flipped, Vector<T>* to) {
  const int taps = group.size * group.size;
  for (int channel = 0; channel < chunk.count; ++channel) {
    const T* from = group.weight + (chunk.first - group.first + channel) * taps;
    const int v = channel / Simd<T>::lanes, lane = channel % Simd<T>::lanes;
    for (int tap = 0; tap < taps; ++tap) to[v * taps + tap][lane] = from[is_flipped ? taps - 1 - tap : tap];
  }
}

// Fill a ring's row with relu(x * scale + shift) of row `y`; the columns at its sides stay zero.
template <typename T>
void fill_activated(Vector<T>* row, Index columns, int padding, const T* x, const Layer<T>& layer, const Chunk& chunk,
                    const Channels<T>& scale, const Channels<T>& shift) {
  constexpr int lanes = Simd<T>::lanes;
  const int whole = chunk.count / lanes, rest = chunk.count % lanes;
  for (Index column = 0; column < layer.width; ++column) {
    const T* from = x + column * layer.channels + chunk.first;
    Vector<T>* to = row + padding + column;
    for (int v = 0; v < whole; ++v) to[v * columns] = relu<T>(load_all(from + v * lanes) * scale[v] + shift[v]);
    if (rest) to[whole * columns] = relu<T>(load(from + whole * lanes, rest) * scale[whole] + shift[whole]);
  }
}

// K is the kernel's size, or 0 for one that is only known now; S the stride.
template <typename T, int K, int S>
void forward(const Layer<T>& layer, const Chunk& chunk, Index image, Index band, const T* x, const T* scale,
             const T* shift, T* d, double* part) {
  constexpr int lanes = Simd<T>::lanes;
  const Group<T>& group = layer.groups[chunk.group];
  const int size = K ? K : group.size, padding = size / 2, taps = size * size;
  const int vectors = (int)divide_up(chunk.count, lanes);
  const Index columns = (divide_up(layer.out_width, kTile) * kTile - 1) * S + size;
  const Channels<T> scales(scale, chunk), shifts(shift, chunk);
  Ring<T> ring(size, vectors, std::max(columns, layer.width + 2 * padding));
  const Index pitch = std::max(columns, layer.width + 2 * padding);
  Scratch<T> weights(vectors * taps);
  gather_weights(group, chunk, false, weights.get());
  double sums[kVectors * lanes] = {}, squares[kVectors * lanes] = {};
  Vector<T> origin[kVectors] = {};
  const Index first = band * kBand, last = std::min(first + kBand, layer.out_height);
  for (Index out_row = first; out_row < last; ++out_row) {
    const Index top = out_row * S - padding;
    for (int k = 0; k < size; ++k) {
      const Index y = top + k;
      if (ring.take(y, y >= 0 && y < layer.height)) {
        fill_activated<T>(ring.row(y), pitch, padding, x + (image * layer.height + y) * layer.width * layer.channels,
                          layer, chunk, scales, shifts);
      }
    }
    T* out = d + (image * layer.out_height + out_row) * layer.out_width * layer.channels + chunk.first;
    for (int v = 0; v < vectors; ++v) {
      const int left = std::min(lanes, chunk.count - v * lanes);
      Vector<T> sum = {}, square = {};
      for (Index column = 0; column < layer.out_width; column += kTile) {
        Vector<T> tile[kTile] = {};
        for (int ky = 0; ky < size; ++ky) {
          if (ring.is_zero(top + ky)) continue;
          const Vector<T>* row = ring.row(top + ky) + v * pitch + column * S;
          const Vector<T>* weight = weights.get() + v * taps + ky * size;
          for (int kx = 0; kx < size; ++kx) {
            const Vector<T> value = weight[kx];
#pragma GCC unroll 8
            for (int j = 0; j < kTile; ++j) tile[j] += value * row[j * S + kx];
          }
        }
        if (out_row == first && column == 0) origin[v] = tile[0];
        const int inside = (int)std::min<Index>(kTile, layer.out_width - column);
        T* to = out + column * layer.channels + v * lanes;
        if (inside == kTile) {
#pragma GCC unroll 8
          for (int j = 0; j < kTile; ++j) {
            store(to + j * layer.channels, tile[j], left);
            const Vector<T> moved = tile[j] - origin[v];
            sum += moved;
            square += moved * moved;
          }
        } else {
          for (int j = 0; j < inside; ++j) {
            store(to + j * layer.channels, tile[j], left);
            const Vector<T> moved = tile[j] - origin[v];
            sum += moved;
            square += moved * moved;
          }
        }
      }
      add_to<T>(sums + v * lanes, sum);
      add_to<T>(squares + v * lanes, square);
    }
  }
  const double count = (double)((last - first) * layer.out_width);
  for (int channel = 0; channel < chunk.count; ++channel) {
    const double moved = sums[channel] / count;
    part[chunk.first + channel] = moved + (double)origin[channel / lanes][channel % lanes];
    part[layer.channels + chunk.first + channel] = squares[channel] - sums[channel] * moved;
  }
}

template <typename T>
struct Backward {
  const T *x, *scale, *shift, *mean, *rstd, *d, *gradient, *d_scale, *d_shift, *c1, *c0;
  T *out, *weight_parts;
  double* sum_parts;
};

// Fill a ring's row with the gradient of row `y` of `d`, its columns `stride` apart.
template <typename T, int S>
void fill_gradient(Vector<T>* row, Index columns, int padding, Index offset, const Layer<T>& layer, const Chunk& chunk,
                   const Backward<T>& given, const Channels<T>& d_scale, const Channels<T>& d_shift,
                   const Channels<T>& c1, const Channels<T>& c0) {
  constexpr int lanes = Simd<T>::lanes;
  const int vectors = (int)divide_up(chunk.count, lanes);
  for (Index column = 0; column < layer.out_width; ++column) {
    const Index at = offset + column * layer.channels + chunk.first;
    for (int v = 0; v < vectors; ++v) {
      const int left = chunk.count - v * lanes;
      const Vector<T> d = load(given.d + at + v * lanes, left);
      const Vector<T> gradient = load(given.gradient + at + v * lanes, left);
      const Vector<T> active = where_active<T>(d * d_scale[v] + d_shift[v], gradient);
      row[v * columns + padding + column * S] = d_scale[v] * active + (c1[v] * d + c0[v]);
    }
  }
}

template <typename T, int K, int S>
void backward(const Layer<T>& layer, const Chunk& chunk, Index image, Index band, Index part, const Backward<T>& given) {
  constexpr int lanes = Simd<T>::lanes;
  const Group<T>& group = layer.groups[chunk.group];
  const int size = K ? K : group.size, padding = size / 2, taps = size * size;
  const int vectors = (int)divide_up(chunk.count, lanes);
  // Wide enough for the gradient's columns, which lie `stride` apart, and for whole tiles.
  const Index pitch = divide_up(layer.width + 1, kTile) * kTile + 2 * padding;
  const Channels<T> scale(given.scale, chunk), shift(given.shift, chunk), mean(given.mean, chunk);
  const Channels<T> rstd(given.rstd, chunk), d_scale(given.d_scale, chunk), d_shift(given.d_shift, chunk);
  const Channels<T> c1(given.c1, chunk), c0(given.c0, chunk);
  Ring<T> activated(size, vectors, pitch), gradients(size, vectors, pitch);
  Scratch<T> weights(vectors * taps), weight_sums(vectors * taps);
  gather_weights(group, chunk, true, weights.get());
  double sums[kVectors * lanes] = {}, products[kVectors * lanes] = {};
  const Index row_length = layer.width * layer.channels, out_row_length = layer.out_width * layer.channels;
  const Index first = band * kBand, last = std::min(first + kBand, layer.height);
  for (Index y = first; y < last; ++y) {
    for (int k = 0; k < size; ++k) {
      const Index near = y - padding + k;
      const bool is_inside = near >= 0 && near < layer.height;
      if (activated.take(near, is_inside)) {
        fill_activated<T>(activated.row(near), pitch, padding, given.x + (image * layer.height + near) * row_length,
                          layer, chunk, scale, shift);
      }
      if (gradients.take(near, is_inside && near % S == 0)) {
        fill_gradient<T, S>(gradients.row(near), pitch, padding,
                            (image * layer.out_height + near / S) * out_row_length, layer, chunk, given, d_scale,
                            d_shift, c1, c0);
      }
    }
    const Index at = (image * layer.height + y) * row_length + chunk.first;
    for (int v = 0; v < vectors; ++v) {
      const int left = std::min(lanes, chunk.count - v * lanes);
      const Vector<T>* gate = activated.row(y) + v * pitch + padding;
      Vector<T> sum = {}, product = {};
      for (Index column = 0; column < layer.width; column += kTile) {
        Vector<T> tile[kTile] = {};
        for (int ky = 0; ky < size; ++ky) {
          if (gradients.is_zero(y - padding + ky)) continue;
          const Vector<T>* row = gradients.row(y - padding + ky) + v * pitch + column;
          const Vector<T>* weight = weights.get() + v * taps + ky * size;
          for (int kx = 0; kx < size; ++kx) {
            const Vector<T> value = weight[kx];
#pragma GCC unroll 8
            for (int j = 0; j < kTile; ++j) tile[j] += value * row[j + kx];
          }
        }
        const int inside = (int)std::min<Index>(kTile, layer.width - column);
        for (int j = 0; j < inside; ++j) {
          const Index place = at + (column + j) * layer.channels + v * lanes;
          const Vector<T> active = where_active<T>(gate[column + j], tile[j]);
          store(given.out + place, active, left);
          sum += active;
          product += active * ((load(given.x + place, left) - mean[v]) * rstd[v]);
        }
      }
      add_to<T>(sums + v * lanes, sum);
      add_to<T>(products + v * lanes, product);
    }
    if (gradients.is_zero(y)) continue;
    for (int v = 0; v < vectors; ++v) {
      const Vector<T>* gradient = gradients.row(y) + v * pitch + padding;
      Vector<T>* total = weight_sums.get() + v * taps;
      if constexpr (K == 3 || K == 5) {  // all taps fit into registers
        Vector<T> tap[K ? K * K : 1] = {};
        const Vector<T>* rows[K ? K : 1];
        for (int ky = 0; ky < K; ++ky) rows[ky] = activated.row(y - padding + ky) + v * pitch;
        for (Index column = 0; column < layer.out_width; ++column) {
          const Vector<T> value = gradient[column * S];
#pragma GCC unroll 5
          for (int ky = 0; ky < K; ++ky) {
#pragma GCC unroll 5
            for (int kx = 0; kx < K; ++kx) tap[ky * K + kx] += value * rows[ky][column * S + kx];
          }
        }
        for (int k = 0; k < K * K; ++k) total[k] += tap[k];
      } else {
        for (int ky = 0; ky < size; ++ky) {
          const Vector<T>* row = activated.row(y - padding + ky) + v * pitch;
          if constexpr (K != 0) {
            Vector<T> tap[K] = {};
            for (Index column = 0; column < layer.out_width; ++column) {
              const Vector<T> value = gradient[column * S];
#pragma GCC unroll 9
              for (int kx = 0; kx < K; ++kx) tap[kx] += value * row[column * S + kx];
            }
            for (int kx = 0; kx < K; ++kx) total[ky * size + kx] += tap[kx];
          } else {
            for (int kx = 0; kx < size; ++kx) {
              Vector<T> tap = {};
              for (Index column = 0; column < layer.out_width; ++column) {
                tap += gradient[column * S] * row[column * S + kx];
              }
              total[ky * size + kx] += tap;
            }
          }
        }
      }
    }
  }
  T* to = given.weight_parts + part * layer.num_weights + group.offset + (chunk.first - group.first) * taps;
  for (int channel = 0; channel < chunk.count; ++channel) {
    for (int tap = 0; tap < taps; ++tap) {
      to[channel * taps + tap] = weight_sums.get()[(channel / lanes) * taps + tap][channel % lanes];
    }
    given.sum_parts[part * 2 * layer.channels + chunk.first + channel] = sums[channel];
    given.sum_parts[(part * 2 + 1) * layer.channels + chunk.first + channel] = products[channel];
  }
}

// Call a function template with the kernel's size and the stride as constants.
#define HRNAS_WITH_CONSTANTS(FUNCTION, SIZE, STRIDE, ...)                                       \
  switch ((SIZE) * 2 + (STRIDE) - 1) {                                                          \
    case 6: FUNCTION<T, 3, 1>(__VA_ARGS__); break;                                              \
    case 7: FUNCTION<T, 3, 2>(__VA_ARGS__); break;                                              \
    case 10: FUNCTION<T, 5, 1>(__VA_ARGS__); break;                                             \
    case 11: FUNCTION<T, 5, 2>(__VA_ARGS__); break;                                             \
    case 14: FUNCTION<T, 7, 1>(__VA_ARGS__); break;                                             \
    case 15: FUNCTION<T, 7, 2>(__VA_ARGS__); break;                                             \
    default:                                                                                    \
      if ((STRIDE) == 1) FUNCTION<T, 0, 1>(__VA_ARGS__); else FUNCTION<T, 0, 2>(__VA_ARGS__);    \
  }

// Means and variances of parts that hold `counts` values each, the parts added in their order (Chan et al. 1979).
template <typename T>
void combine_moments(const double* parts, const std::vector<double>& counts, Index channels, T* mean, T* variance) {
  for (Index channel = 0; channel < channels; ++channel) {
    double total = 0, middle = 0, squares = 0;
    for (std::size_t part = 0; part < counts.size(); ++part) {
      const double moved = parts[part * 2 * channels + channel] - middle;
      const double all = total + counts[part];
      squares += parts[(part * 2 + 1) * channels + channel] + moved * moved * total * counts[part] / all;
      middle += moved * counts[part] / all;
      total = all;
    }
    mean[channel] = (T)middle;
    variance[channel] = (T)(squares / total);
  }
}

template <typename T>
void run_forward(const Index* shape, Index num_groups, const Index* sizes, const Index* counts, const T* const* weights,
                 const T* x, const T* scale, const T* shift, T* d, T* mean, T* variance) {
  const Layer<T> layer(shape, num_groups, sizes, counts, weights);
  const Index bands = divide_up(layer.out_height, kBand), parts = layer.images * bands;
  std::vector<double> moments(parts * 2 * layer.channels), pixels(parts);
  const Index num_chunks = (Index)layer.chunks.size();
#pragma omp parallel for schedule(dynamic)
  for (Index task = 0; task < num_chunks * parts; ++task) {
    const Chunk& chunk = layer.chunks[num_chunks - 1 - task / parts];  // the larger kernels first
    const Index part = task % parts, band = part % bands;
    HRNAS_WITH_CONSTANTS(forward, layer.groups[chunk.group].size, layer.stride, layer, chunk, part / bands, band, x,
                         scale, shift, d, moments.data() + part * 2 * layer.channels)
  }
  for (Index part = 0; part < parts; ++part) {
    const Index first = part % bands * kBand;
    pixels[part] = (double)((std::min(first + kBand, layer.out_height) - first) * layer.out_width);
  }
  combine_moments(moments.data(), pixels, layer.channels, mean, variance);
}

template <typename T>
void run_backward(const Index* shape, Index num_groups, const Index* sizes, const Index* counts,
                  const T* const* weights, Backward<T> given, T* weight_gradients, T* sum, T* product) {
  const Layer<T> layer(shape, num_groups, sizes, counts, weights);
  const Index bands = divide_up(layer.height, kBand), parts = layer.images * bands;
  std::vector<T> weight_parts(parts * layer.num_weights);
  std::vector<double> sum_parts(parts * 2 * layer.channels);
  given.weight_parts = weight_parts.data();
  given.sum_parts = sum_parts.data();
  const Index num_chunks = (Index)layer.chunks.size();
#pragma omp parallel for schedule(dynamic)
  for (Index task = 0; task < num_chunks * parts; ++task) {
    const Chunk& chunk = layer.chunks[num_chunks - 1 - task / parts];
    const Index part = task % parts;
    HRNAS_WITH_CONSTANTS(backward, layer.groups[chunk.group].size, layer.stride, layer, chunk, part / bands,
                         part % bands, part, given)
  }
  for (Index weight = 0; weight < layer.num_weights; ++weight) {
    double total = 0;
    for (Index part = 0; part < parts; ++part) total += (double)weight_parts[part * layer.num_weights + weight];
    weight_gradients[weight] = (T)total;
  }
  for (Index channel = 0; channel < layer.channels; ++channel) {
    double first = 0, second = 0;
    for (Index part = 0; part < parts; ++part) {
      first += sum_parts[part * 2 * layer.channels + channel];
      second += sum_parts[(part * 2 + 1) * layer.channels + channel];
    }
    sum[channel] = (T)first;
    product[channel] = (T)second;
  }
}

// Divide the pixels of a map among tasks; `body(first, last, part)`.
template <typename Body>
Index over_pixels(Index pixels, const Body& body) {
  const Index step = std::max(kPixels, divide_up(divide_up(pixels, kParts), kFlush) * kFlush);
  const Index parts = divide_up(pixels, step);
#pragma omp parallel for schedule(static)
  for (Index part = 0; part < parts; ++part) body(part * step, std::min((part + 1) * step, pixels), part);
  return parts;
}

template <typename T>
void run_moments(Index pixels, Index channels, const T* x, T* mean, T* variance) {
  constexpr int lanes = Simd<T>::lanes;
  const Index vectors = divide_up(channels, lanes);
  std::vector<double> moments(kParts * 2 * channels), counts(kParts);
  const Index parts = over_pixels(pixels, [&](Index first, Index last, Index part) {
    Scratch<T> scratch(3 * vectors);
    Vector<T>*origin = scratch.get(), *sum = origin + vectors, *square = sum + vectors;
    std::vector<double> sums(vectors * lanes), squares(vectors * lanes);
    for (Index v = 0; v < vectors; ++v) {
      origin[v] = load(x + first * channels + v * lanes, (int)std::min<Index>(lanes, channels - v * lanes));
    }
    for (Index start = first; start < last; start += kFlush) {
      std::memset(static_cast<void*>(sum), 0, 2 * vectors * 64);
      for (Index pixel = start; pixel < std::min(start + kFlush, last); ++pixel) {
        const T* from = x + pixel * channels;
        for (Index v = 0; v < vectors; ++v) {
          const int left = (int)std::min<Index>(lanes, channels - v * lanes);
          const Vector<T> moved = load(from + v * lanes, left) - origin[v];
          sum[v] += moved;
          square[v] += moved * moved;
        }
      }
      for (Index v = 0; v < vectors; ++v) {
        add_to<T>(sums.data() + v * lanes, sum[v]);
        add_to<T>(squares.data() + v * lanes, square[v]);
      }
    }
    counts[part] = (double)(last - first);
    for (Index channel = 0; channel < channels; ++channel) {
      const double moved = sums[channel] / counts[part];
      moments[part * 2 * channels + channel] = moved + (double)origin[channel / lanes][channel % lanes];
      moments[(part * 2 + 1) * channels + channel] = squares[channel] - sums[channel] * moved;
    }
  });
  counts.resize(parts);
  combine_moments(moments.data(), counts, channels, mean, variance);
}

template <typename T>
void run_activate(Index pixels, Index channels, const T* x, const T* scale, const T* shift, T* out) {
  constexpr int lanes = Simd<T>::lanes;
  over_pixels(pixels, [&](Index first, Index last, Index) {
    for (Index at = first * channels; at < last * channels; at += channels) {
      for (Index c = 0; c < channels; c += lanes) {
        const int left = (int)std::min<Index>(lanes, channels - c);
        store(out + at + c, relu<T>(load(x + at + c, left) * load(scale + c, left) + load(shift + c, left)), left);
      }
    }
  });
}

template <typename T>
void run_activate_backward(Index pixels, Index channels, const T* x, const T* gradient, const T* scale, const T* shift,
                           const T* mean, const T* rstd, T* activated, T* sum, T* product) {
  constexpr int lanes = Simd<T>::lanes;
  const Index vectors = divide_up(channels, lanes);
  std::vector<double> parts_of_sums(kParts * 2 * vectors * lanes);
  const Index parts = over_pixels(pixels, [&](Index first, Index last, Index part) {
    Scratch<T> scratch(2 * vectors);
    Vector<T>*sums = scratch.get(), *products = sums + vectors;
    double* totals = parts_of_sums.data() + part * 2 * vectors * lanes;
    for (Index start = first; start < last; start += kFlush) {
      std::memset(static_cast<void*>(sums), 0, 2 * vectors * 64);
      for (Index pixel = start; pixel < std::min(start + kFlush, last); ++pixel) {
        const Index at = pixel * channels;
        for (Index v = 0; v < vectors; ++v) {
          const Index c = v * lanes;
          const int left = (int)std::min<Index>(lanes, channels - c);
          const Vector<T> value = load(x + at + c, left);
          const Vector<T> before = value * load(scale + c, left) + load(shift + c, left);
          const Vector<T> active = where_active<T>(before, load(gradient + at + c, left));
          store(activated + at + c, relu<T>(before), left);
          sums[v] += active;
          products[v] += active * ((value - load(mean + c, left)) * load(rstd + c, left));
        }
      }
      for (Index v = 0; v < vectors; ++v) {
        add_to<T>(totals + v * lanes, sums[v]);
        add_to<T>(totals + (vectors + v) * lanes, products[v]);
      }
    }
  });
  for (Index channel = 0; channel < channels; ++channel) {
    double first = 0, second = 0;
    for (Index part = 0; part < parts; ++part) {
      first += parts_of_sums[part * 2 * vectors * lanes + channel];
      second += parts_of_sums[(part * 2 + 1) * vectors * lanes + channel];
    }
    sum[channel] = (T)first;
    product[channel] = (T)second;
  }
}

template <typename T>
void run_norm_backward(Index pixels, Index channels, T* gradient, const T* x, const T* scale, const T* c1, const T* c0) {
  constexpr int lanes = Simd<T>::lanes;
  over_pixels(pixels, [&](Index first, Index last, Index) {
    for (Index at = first * channels; at < last * channels; at += channels) {
      for (Index c = 0; c < channels; c += lanes) {
        const int left = (int)std::min<Index>(lanes, channels - c);
        const Vector<T> value = load(scale + c, left) * load(gradient + at + c, left) +
                                (load(c1 + c, left) * load(x + at + c, left) + load(c0 + c, left));
        store(gradient + at + c, value, left);
      }
    }
  });
}

}  // namespace

// shape: images, height, width, channels, stride. Every pointer is to contiguous values, channels innermost.
#define HRNAS_EXPORT(T, NAME)                                                                                          \
  extern "C" void moments_##NAME(Index pixels, Index channels, const T* x, T* mean, T* variance) {                     \
    run_moments<T>(pixels, channels, x, mean, variance);                                                               \
  }                                                                                                                    \
  extern "C" void depthwise_##NAME(const Index* shape, Index groups, const Index* sizes, const Index* counts,          \
                                   const T* const* weights, const T* x, const T* scale, const T* shift, T* d, T* mean, \
                                   T* variance) {                                                                      \
    run_forward<T>(shape, groups, sizes, counts, weights, x, scale, shift, d, mean, variance);                         \
  }                                                                                                                    \
  extern "C" void activate_##NAME(Index pixels, Index channels, const T* x, const T* scale, const T* shift, T* out) {  \
    run_activate<T>(pixels, channels, x, scale, shift, out);                                                           \
  }                                                                                                                    \
  extern "C" void activate_backward_##NAME(Index pixels, Index channels, const T* x, const T* gradient,                \
                                           const T* scale, const T* shift, const T* mean, const T* rstd, T* activated, \
                                           T* sum, T* product) {                                                       \
    run_activate_backward<T>(pixels, channels, x, gradient, scale, shift, mean, rstd, activated, sum, product);        \
  }                                                                                                                    \
  extern "C" void depthwise_backward_##NAME(const Index* shape, Index groups, const Index* sizes, const Index* counts, \
                                            const T* const* weights, const T* x, const T* scale, const T* shift,       \
                                            const T* mean, const T* rstd, const T* d, const T* gradient,               \
                                            const T* d_scale, const T* d_shift, const T* c1, const T* c0, T* out,      \
                                            T* weight_gradients, T* sum, T* product) {                                 \
    const Backward<T> given = {x,  scale, shift, mean,    rstd,    d, gradient, d_scale, d_shift,                      \
                               c1, c0,    out,   nullptr, nullptr};                                                    \
    run_backward<T>(shape, groups, sizes, counts, weights, given, weight_gradients, sum, product);                     \
  }                                                                                                                    \
  extern "C" void norm_backward_##NAME(Index pixels, Index channels, T* gradient, const T* x, const T* scale,          \
                                       const T* c1, const T* c0) {                                                     \
    run_norm_backward<T>(pixels, channels, gradient, x, scale, c1, c0);                                                \
  }

HRNAS_EXPORT(float, float32)
HRNAS_EXPORT(double, float64)
