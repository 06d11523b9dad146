#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "atelier/core/safetensors.h"
#include "atelier/ops/shape_ops.h"
#include "atelier/ops/torch.h"

namespace atelier::ops {

/// Tensors by name, in the order of their names: what a safetensors file is. Teacher, fake score, EMA and student are
/// copies of such a map. One may stand on another, its base, whose tensors are found where it has none of its own (ops/low_rank.h); all but `at` and `contains` are
/// about its own.
class Parameters {
public:
    Parameters() = default;
    explicit Parameters(std::map<std::string, Tensor> tensors) : tensors_(std::move(tensors)) {}

    /// Throws core::Error when there is no such tensor.
    const Tensor& at(const std::string& name) const;
    bool contains(const std::string& name) const { return tensors_.contains(name) || (base_ && base_->contains(name)); }
    void stand_on(std::shared_ptr<const Parameters> base) { base_ = std::move(base); }
    const std::shared_ptr<const Parameters>& base() const { return base_; }
    void set(const std::string& name, Tensor tensor) { tensors_[name] = std::move(tensor); }
    bool empty() const { return tensors_.empty(); }

    const std::map<std::string, Tensor>& tensors() const { return tensors_; }
    std::vector<Tensor> list() const;
    std::int64_t count() const;  // numbers in all

    /// A deep copy that requires no gradient; of the same base.
    Parameters clone() const;
    /// Overwrites every tensor's numbers with those of `other`, which must have the same names and shapes.
    void copy_from(const Parameters& other);
    Parameters to(at::Device device, at::ScalarType type = at::kFloat) const;
    /// The same with matrices and filters (two dimensions or more) as `type`. Autocast computes the same bits with it, and need not convert them in every pass.
    Parameters with_matrices_as(at::ScalarType type) const;
    void require_gradients(bool wanted) const;
    bool all_finite() const;

    /// The tensors whose names begin with `prefix`, without it.
    Parameters under(const std::string& prefix) const;
    /// Adds all of `other` with `prefix` put before the names.
    void merge(const Parameters& other, const std::string& prefix);

private:
    std::map<std::string, Tensor> tensors_;
    std::shared_ptr<const Parameters> base_;
};

/// Fresh parameters; each tensor depends on the seed and its own name alone.
Parameters initialise(std::span<const ParameterSpec> specs, std::uint64_t seed);

/// Whether a tensor is a network's own but never trained: the frequencies of Ops::fourier.
bool is_fixed(const std::string& name);

/// Throws core::Error naming `where` and the first tensor that is missing, superfluous or of another shape than `specs` says.
void check_against(const Parameters& parameters, std::span<const ParameterSpec> specs, const std::string& where);

/// Reads every tensor of a file (floating types as float32 unless `keep_types`), copied out of the mapping.
Parameters read_parameters(const std::filesystem::path& path, bool keep_types = false);
Parameters read_parameters(const core::SafetensorsFile& file, bool keep_types = false);

/// One tensor out of a file: floating types as float32 unless `keep_type`.
Tensor read_tensor(const core::SafetensorsFile& file, const std::string& name, bool keep_type = false);

/// Row `row` of a tensor in a file, as float32 where it is floating, copied; no more of the file is looked at. Throws core::Error when there is none.
Tensor read_row(const core::SafetensorsFile& file, const std::string& name, std::int64_t row);

/// Like read_parameters, but float32 and int8 tensors look into the mapped file, which they keep open: processes share them, and pages that nobody looks at
/// take no memory. They must not be written to.
Parameters map_parameters(const std::shared_ptr<const core::SafetensorsFile>& file);

/// A tensor of a file in its own type, which looks into the mapped file and keeps it open.
Tensor map_tensor(const std::shared_ptr<const core::SafetensorsFile>& file, const std::string& name);

/// Writes atomically; equal parameters and metadata give equal bytes.
void write_parameters(const std::filesystem::path& path, const Parameters& parameters,
                      const std::map<std::string, std::string>& metadata = {});

/// SHA-256 over names, shapes and bytes: the model's identity, whichever file it lies in.
std::string hash_of(const Parameters& parameters);

}  // namespace atelier::ops
