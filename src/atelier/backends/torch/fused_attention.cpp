#include "atelier/backends/torch/fused_attention.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "atelier/backends/torch/fused_norm.h"
#include "atelier/backends/torch/parallel.h"
#include "atelier/backends/torch/tensor_data.h"
#include "atelier/kernels/attention_kernels.h"
#include "atelier/kernels/winograd_kernels.h"
#include "atelier/kernels/workspace.h"

namespace atelier::backends {

namespace {

using kernels::attention_kernels::Bfloat16;
using kernels::winograd_kernels::panel;

constexpr std::int64_t query_block = 56;

const kernels::winograd_kernels::Table& matrices() { return kernels::winograd_kernels::best(); }

template <class T>
const auto& attention_loops() {
    return loops_of<T>(kernels::attention_kernels::best());
}

std::int64_t in_panels(std::int64_t count) { return (count + panel - 1) / panel * panel; }

/// Sizes of a head, and the steps that compute it.
struct Head {
    std::int64_t tokens, width;  // elements per head and token
    std::int64_t slots = in_panels(tokens), columns = in_panels(width);
    float factor = 1 / std::sqrt(static_cast<float>(width));

    std::int64_t query_rows() const { return std::min(tokens, query_block); }

    template <class Block>  // block(first, count)
    void for_each_query_block(const Block& block) const {
        for (std::int64_t first = 0; first < tokens; first += query_block)
            block(first, std::min(query_block, tokens - first));
    }

    /// Packs rows [tokens,columns] as a right factor whose inner dimension is the tokens: panels
    /// [columns/16] of [tokens,16].
    void token_panels(const float* rows, float* panels) const {
        for (std::int64_t t = 0; t < tokens; ++t) {
            for (std::int64_t c = 0; c < columns; c += panel)
                std::copy_n(rows + t * columns + c, panel, panels + c * tokens + t * panel);
        }
    }
    /// Packs rows [tokens,columns] as a right factor whose columns are the tokens: panels
    /// [slots/16] of [width,16], zeros beyond the last token.
    void transposed_panels(const float* rows, float* panels) const {
        for (std::int64_t first = 0; first < slots; first += panel, panels += width * panel) {
            const std::int64_t count = std::min(panel, tokens - first);
            for (std::int64_t c = 0; c < width; ++c) {
                for (std::int64_t t = 0; t < count; ++t)
                    panels[c * panel + t] = rows[(first + t) * columns + c];
                std::fill(panels + c * panel + count, panels + (c + 1) * panel, 0.0F);
            }
        }
    }
    /// softmax(factor q k^T) of some queries, [count,slots].
    void probabilities(std::int64_t count, const float* q, const float* k_transposed,
                       float* p) const {
        matrices().multiply(count, width, slots, q, columns, k_transposed, width * panel, false, p,
                            slots);
        const auto softmax = kernels::attention_kernels::best().softmax;
        for (std::int64_t i = 0; i < count; ++i) softmax(tokens, factor, p + i * slots);
    }
};

/// Hands out consecutive parts of a thread's workspace.
class Arena {
public:
    explicit Arena(float* begin) : at_(begin) {}
    float* take(std::int64_t values) { return std::exchange(at_, at_ + values); }

private:
    float* at_;
};

/// q, k and v of a head as rows of h.columns elements, zeros beyond the head's width.
template <class T>
void deinterleave_head(const Head& h, const T* qkv, std::int64_t step, float* q, float* k,
                       float* v) {
    const auto& loops = attention_loops<T>();
    for (std::int64_t t = 0; t < h.tokens; ++t) {
        for (float* rows : {q, k, v})
            std::fill(rows + t * h.columns + h.width, rows + (t + 1) * h.columns, 0.0F);
        loops.deinterleave(h.width, qkv + t * step, q + t * h.columns, k + t * h.columns,
                           v + t * h.columns);
    }
}

std::int64_t forward_size(const Head& h) {
    return 3 * h.tokens * h.columns + h.slots * h.width + h.tokens * h.columns +
           h.query_rows() * (h.slots + h.columns);
}

/// Computes one head's part of `y`, rows `y_step` apart, from its part of `qkv`, rows 3*y_step
/// apart.
template <class T>
void attend_forward(const Head& h, const T* qkv, std::int64_t y_step, T* y) {
    const auto& loops = attention_loops<T>();
    Arena arena(kernels::thread_workspace(static_cast<std::size_t>(forward_size(h))));
    float *q = arena.take(h.tokens * h.columns), *k = arena.take(h.tokens * h.columns),
          *v = arena.take(h.tokens * h.columns);
    float *k_transposed = arena.take(h.slots * h.width),
          *v_panels = arena.take(h.tokens * h.columns);
    float *p = arena.take(h.query_rows() * h.slots), *sums = arena.take(h.query_rows() * h.columns);
    deinterleave_head(h, qkv, 3 * y_step, q, k, v);
    h.transposed_panels(k, k_transposed);
    h.token_panels(v, v_panels);
    h.for_each_query_block([&](std::int64_t first, std::int64_t count) {
        h.probabilities(count, q + first * h.columns, k_transposed, p);
        matrices().multiply(count, h.tokens, h.columns, p, h.slots, v_panels, h.tokens * panel,
                            false, sums, h.columns);
        for (std::int64_t i = 0; i < count; ++i)
            loops.write(h.width, sums + i * h.columns, y + (first + i) * y_step);
    });
}

std::int64_t backward_size(const Head& h) {
    return 6 * h.tokens * h.columns + 2 * h.slots * h.width + 2 * h.slots * h.columns +
           2 * h.query_rows() * h.slots;
}

/// The gradient with respect to one head's part of qkv, from that with respect to its part of y.
template <class T>
void attend_backward(const Head& h, const T* qkv, const T* dy, std::int64_t y_step, T* dqkv) {
    const auto& loops = attention_loops<T>();
    Arena arena(kernels::thread_workspace(static_cast<std::size_t>(backward_size(h))));
    const auto rows = [&] { return arena.take(h.tokens * h.columns); };
    float *q = rows(), *k = rows(), *v = rows(), *gradients = rows(), *dq = rows(),
          *k_panels = rows();
    float *k_transposed = arena.take(h.slots * h.width),
          *v_transposed = arena.take(h.slots * h.width);
    float *dk = arena.take(h.slots * h.columns), *dv = arena.take(h.slots * h.columns);
    float *p = arena.take(h.query_rows() * h.slots), *dp = arena.take(h.query_rows() * h.slots);
    const auto softmax_backward = kernels::attention_kernels::best().softmax_backward;
    deinterleave_head(h, qkv, 3 * y_step, q, k, v);
    h.transposed_panels(k, k_transposed);
    h.transposed_panels(v, v_transposed);
    h.token_panels(k, k_panels);
    for (std::int64_t t = 0; t < h.tokens; ++t) {
        std::fill(gradients + t * h.columns + h.width, gradients + (t + 1) * h.columns, 0.0F);
        loops.read(h.width, dy + t * y_step, gradients + t * h.columns);
    }
    h.for_each_query_block([&](std::int64_t first, std::int64_t count) {
        const float *q_here = q + first * h.columns,
                    *gradients_here = gradients + first * h.columns;
        const bool more = first > 0;
        h.probabilities(count, q_here, k_transposed, p);
        matrices().multiply_transposed(count, h.slots, h.columns, p, gradients_here, more, dv);
        matrices().multiply(count, h.width, h.slots, gradients_here, h.columns, v_transposed,
                            h.width * panel, false, dp, h.slots);
        for (std::int64_t i = 0; i < count; ++i)
            softmax_backward(h.tokens, h.factor, p + i * h.slots, dp + i * h.slots);
        matrices().multiply_transposed(count, h.slots, h.columns, dp, q_here, more, dk);
        matrices().multiply(count, h.tokens, h.columns, dp, h.slots, k_panels, h.tokens * panel,
                            false, dq + first * h.columns, h.columns);
    });
    for (std::int64_t t = 0; t < h.tokens; ++t) {
        loops.interleave(h.width, dq + t * h.columns, dk + t * h.columns, dv + t * h.columns,
                         dqkv + t * 3 * y_step);
    }
}

/// Calls each(h, offset of its part of qkv, offset of its part of y) for all heads of all samples.
template <class Each>
void for_each_head(const Tensor& qkv, std::int64_t heads, const Each& each) {
    const std::int64_t channels = qkv.size(1) / 3, tokens = qkv.size(2) * qkv.size(3);
    const Head h{tokens, channels / heads};
    parallel_for(qkv.size(0) * heads, [&](std::int64_t i) {
        const std::int64_t begin = i / heads * tokens * channels + i % heads * h.width;
        each(h, 3 * begin, begin);
    });
}

template <class Task>
void by_type(const Tensor& tensor, const Task& task) {
    if (tensor.scalar_type() == at::kFloat) task(float{});
    else task(Bfloat16{});
}

struct Attended : torch::autograd::Function<Attended> {
    static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& qkv,
                          std::int64_t heads) {
        const Tensor last = qkv.contiguous(at::MemoryFormat::ChannelsLast);
        const std::int64_t channels = last.size(1) / 3;
        const Tensor y = at::empty({last.size(0), channels, last.size(2), last.size(3)},
                                   last.options(), at::MemoryFormat::ChannelsLast);
        by_type(last, [&]<class T>(T) {
            for_each_head(last, heads, [&](const Head& h, std::int64_t from, std::int64_t to) {
                attend_forward(h, data_of<T>(last) + from, channels, writable_data_of<T>(y) + to);
            });
        });
        context->save_for_backward({last});
        context->saved_data["heads"] = heads;
        return y;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   torch::autograd::variable_list gradients) {
        DoubleBackwardGuard::reject_double_backward("the fused attention");
        const Tensor qkv = context->get_saved_variables()[0], dqkv = at::empty_like(qkv);
        const Tensor dy =
            gradients[0].to(qkv.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
        by_type(qkv, [&]<class T>(T) {
            for_each_head(qkv, context->saved_data["heads"].toInt(),
                          [&](const Head& h, std::int64_t from, std::int64_t to) {
                              attend_backward(h, data_of<T>(qkv) + from, data_of<T>(dy) + to,
                                              dy.size(1), writable_data_of<T>(dqkv) + from);
                          });
        });
        return {dqkv, Tensor()};
    }
};

}  // namespace

bool can_fuse_attention(const Tensor& qkv) {
    return qkv.device().is_cpu() && qkv.dim() == 4 && qkv.numel() > 0 &&
           (qkv.scalar_type() == at::kFloat || qkv.scalar_type() == at::kBFloat16);
}

Tensor fused_attention(const Tensor& qkv, std::int64_t heads) {
    return Attended::apply(qkv, heads);
}

}  // namespace atelier::backends
