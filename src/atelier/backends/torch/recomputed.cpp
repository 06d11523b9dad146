#include "atelier/backends/torch/recomputed.h"

#include <torch/csrc/autograd/custom_function.h>

#include "atelier/backends/torch/torch_ops.h"
#include "atelier/core/error.h"

namespace atelier::backends {

namespace {

std::optional<at::ScalarType> precision_now(at::DeviceType device) {
    if (!at::autocast::is_autocast_enabled(device)) return std::nullopt;
    return at::autocast::get_autocast_dtype(device);
}

/// What the backward pass needs besides tensors; `result` is only set until it is handed over.
struct Job : torch::CustomClassHolder {
    std::shared_ptr<const graph::Graph> body;
    std::string prefix;
    std::vector<std::string> names;  // of the parameters that body reads, wide or narrow
    std::optional<at::ScalarType> precision;
    Tensor result;
};

Tensor run(const Job& job, std::span<const Tensor> inputs, const Parameters& parameters) {
    return TorchOps(parameters, job.prefix).run(*job.body, inputs)[0];
}

struct Recomputed : torch::autograd::Function<Recomputed> {
    /// `tensors` are the inputs, then the parameters in the order of their names.
    static Tensor forward(torch::autograd::AutogradContext* context, at::TensorList tensors,
                          const c10::intrusive_ptr<Job>& job) {
        context->save_for_backward(tensors.vec());
        context->saved_data["job"] = c10::IValue::make_capsule(job);
        return std::exchange(job->result, Tensor());
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   torch::autograd::variable_list gradients) {
        if (at::GradMode::is_enabled()) {
            core::fail(
                "a recomputed block does not support double backward; keep an "
                "backends::DoubleBackwardGuard alive while computing it");
        }
        const auto job =
            c10::static_intrusive_pointer_cast<Job>(context->saved_data["job"].toCapsule());
        const auto saved = context->get_saved_variables();
        std::vector<Tensor> copies, differentiable;
        for (std::size_t i = 0; i < saved.size(); ++i) {
            copies.push_back(saved[i].detach());
            if (!context->needs_input_grad(i)) continue;
            copies.back().requires_grad_(true);
            differentiable.push_back(copies.back());
        }
        const std::size_t count = saved.size() - job->names.size();
        Parameters parameters;
        for (std::size_t i = 0; i < job->names.size(); ++i)
            parameters.set(job->names[i], copies[count + i]);
        torch::autograd::variable_list found;
        {
            const at::AutoGradMode with_gradients(true);
            Tensor again;
            {
                const LowPrecision precision(saved.front().device().type(), job->precision);
                again = run(*job, std::span(copies).first(count), parameters);
            }
            found =
                torch::autograd::grad({again}, differentiable, {gradients[0]}, std::nullopt, false,
                                      /*allow_unused=*/true);
        }
        torch::autograd::variable_list all(saved.size() + 1);  // the last one belongs to the job
        for (std::size_t i = 0, next = 0; i < saved.size(); ++i) {
            if (context->needs_input_grad(i)) all[i] = found[next++];
        }
        return all;
    }
};

}  // namespace

Tensor recomputed(const graph::Block& block, std::span<const Tensor> inputs,
                  const Parameters& parameters, const std::string& prefix) {
    std::vector<Tensor> tensors(inputs.begin(), inputs.end());
    auto job = c10::make_intrusive<Job>();
    job->body = block.body;
    job->prefix = prefix;
    job->precision = precision_now(tensors.front().device().type());
    std::map<std::string, Tensor> read;
    {
        at::NoGradGuard no_gradients;
        TorchOps backend(parameters, prefix);
        backend.record_reads(read);
        job->result = backend.run(*block.body, inputs)[0];
    }
    for (const auto& [name, tensor] : read) {
        job->names.push_back(name);
        tensors.push_back(tensor);
    }
    return Recomputed::apply(at::TensorList(tensors), job);
}

}  // namespace atelier::backends
