// Vectors of 64 bytes, whatever the processor has, and memory for them.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

using Index = std::int64_t;

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

}  // namespace
