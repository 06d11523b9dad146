#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "atelier/backends/torch/torch.h"
#include "atelier/core/safetensors.h"
#include "atelier/graph/graph.h"

namespace atelier::backends {

/// Tensors by name, in the order of their names, as in a safetensors file. Teacher, fake score, EMA
/// and student are copies of such a map. A map may have a base, in which tensors are looked up that
/// it lacks (ops/low_rank.h); all functions but `at` and `contains` concern its own tensors.
///
/// On accelerators a map may also hold copies of its tensors in a narrower type (bfloat16, half),
/// which networks under autocast compute with, so that they are not converted in every pass.
class Parameters {
public:
    Parameters() = default;
    explicit Parameters(std::map<std::string, Tensor> tensors) : tensors_(std::move(tensors)) {}

    /// Throws core::Error when there is no such tensor.
    const Tensor& at(const std::string& name) const;
    bool contains(const std::string& name) const {
        return tensors_.contains(name) || (base_ && base_->contains(name));
    }
    void set_base(std::shared_ptr<const Parameters> base) { base_ = std::move(base); }
    const std::shared_ptr<const Parameters>& base() const { return base_; }
    void set(const std::string& name, Tensor tensor) { tensors_[name] = std::move(tensor); }
    bool empty() const { return tensors_.empty(); }

    const std::map<std::string, Tensor>& tensors() const { return tensors_; }
    std::vector<Tensor> list() const;
    std::int64_t count() const;  // elements in total

    /// A deep copy without requires_grad, with the same base.
    Parameters clone() const;
    /// Overwrites the values of every tensor with those of `other`, which must have the same names
    /// and shapes.
    void copy_from(const Parameters& other);
    Parameters to(at::Device device, at::ScalarType type = at::kFloat) const;
    /// The same with weights of two or more dimensions as `type`. Autocast computes the same bits
    /// with it and need not convert them in every pass. On accelerators the others have narrow
    /// copies.
    Parameters cast_weights(at::ScalarType type) const;

    /// Makes narrow copies of all trained tensors; they require gradients where those do. Nothing
    /// on CPUs, whose kernels convert.
    void keep_narrow(at::ScalarType type);
    void drop_narrow() { narrow_.clear(); }
    /// Overwrites the narrow copies, if any, after the tensors have changed.
    void refresh_narrow() const;
    /// What networks under autocast read: the narrow copy where there is one, else `at`.
    const Tensor& narrow(const std::string& name) const;
    /// What losses are differentiated by: the tensors (list()), then their narrow copies.
    std::vector<Tensor> leaves() const;
    /// The gradients for list(), in its tensors' types, from those for leaves(): the sum over a
    /// tensor and its copy. Undefined where neither has one.
    std::vector<Tensor> joined_gradients(std::vector<Tensor> of_leaves) const;
    void require_gradients(bool required) const;
    bool all_finite() const;

    /// The tensors whose names begin with `prefix`, with the prefix removed.
    Parameters subset(const std::string& prefix) const;
    /// Adds all of `other` with `prefix` prepended to the names.
    void merge(const Parameters& other, const std::string& prefix);

private:
    std::map<std::string, Tensor> tensors_, narrow_;
    std::shared_ptr<const Parameters> base_;
};

/// Initialised parameters; each tensor depends only on the seed and its own name.
Parameters initialise(std::span<const graph::ParameterSpec> specs, std::uint64_t seed);

/// Whether a tensor belongs to a network but is never trained: the frequencies of graph::Fourier.
bool is_buffer(const std::string& name);

/// Throws core::Error naming `where` and the first tensor that is missing, unexpected or of another
/// shape than `specs` says.
void check_against(const Parameters& parameters, std::span<const graph::ParameterSpec> specs,
                   const std::string& where);

/// Reads every tensor of a file (floating-point types as float32 unless `keep_types`), copied out
/// of the mapping.
Parameters read_parameters(const std::filesystem::path& path, bool keep_types = false);
Parameters read_parameters(const core::SafetensorsFile& file, bool keep_types = false);

/// Reads one tensor of a file: floating-point types as float32 unless `keep_type`.
Tensor read_tensor(const core::SafetensorsFile& file, const std::string& name,
                   bool keep_type = false);

/// Copies row `row` of a tensor in a file, as float32 where it is floating-point, without reading
/// the rest of the file. Throws core::Error when there is no such row.
Tensor read_row(const core::SafetensorsFile& file, const std::string& name, std::int64_t row);

/// Like read_parameters, but float32 and int8 tensors refer to the mapped file, which they keep
/// open: processes share them, and pages that are never accessed take no memory. They must not be
/// written to.
Parameters map_parameters(const std::shared_ptr<const core::SafetensorsFile>& file);

/// A tensor of a file in its own type, which refers to the mapped file and keeps it open.
Tensor map_tensor(const std::shared_ptr<const core::SafetensorsFile>& file,
                  const std::string& name);

/// Writes atomically; equal parameters and metadata give equal bytes.
void write_parameters(const std::filesystem::path& path, const Parameters& parameters,
                      const std::map<std::string, std::string>& metadata = {});

/// SHA-256 over names, shapes and bytes: the model's identity, independent of the file it is in.
std::string hash_of(const Parameters& parameters);

}  // namespace atelier::backends
