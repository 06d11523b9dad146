#include "atelier/metrics/statistics_file.h"

#include "atelier/core/error.h"
#include "atelier/core/npz.h"

namespace atelier::metrics {

namespace {

constexpr std::size_t largest =
    std::size_t{1} << 32;  // bytes; a guided-diffusion reference batch contains its images

Tensor array_of(const std::map<std::string, core::Array>& arrays, const std::string& name,
                const core::Shape& shape, const std::string& where) {
    const auto found = arrays.find(name);
    if (found == arrays.end())
        core::fail("{}: has no array \"{}\"; reference statistics are \"mu\" and \"sigma\"", where,
                   name);
    const core::Array& array = found->second;
    if (array.shape != shape ||
        (array.dtype != core::DType::F64 && array.dtype != core::DType::F32)) {
        core::fail("{}: \"{}\" is {} of {}; these features have {} of F64 or F32", where, name,
                   core::to_string(array.shape), core::name_of(array.dtype),
                   core::to_string(shape));
    }
    const auto type = array.dtype == core::DType::F64 ? at::kDouble : at::kFloat;
    const Tensor tensor =
        at::from_blob(const_cast<std::byte*>(array.bytes.data()), shape, at::TensorOptions(type))
            .to(at::kDouble)
            .clone();
    if (!at::isfinite(tensor).all().item<bool>())
        core::fail("{}: \"{}\" holds values that are not finite", where, name);
    return tensor;
}

core::TensorBytes bytes_of(const std::string& name, const Tensor& tensor) {
    return {name,
            core::DType::F64,
            tensor.sizes().vec(),
            {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}};
}

}  // namespace

Statistics read_statistics(const std::filesystem::path& path, std::int64_t width) {
    const auto arrays = core::read_npz(path, {"mu", "sigma"}, largest);
    Statistics statistics{array_of(arrays, "mu", {width}, path.string()),
                          array_of(arrays, "sigma", {width, width}, path.string()), 0};
    const Tensor& sigma = statistics.covariance;
    if ((sigma - sigma.t()).abs().max().item<double>() > 1e-4 * sigma.abs().max().item<double>()) {
        core::fail("{}: \"sigma\" is not symmetric, so it is not a covariance", path.string());
    }
    check_covariance(sigma, fmt::format("{}: \"sigma\"", path.string()));
    return statistics;
}

void write_statistics(const std::filesystem::path& path, const Statistics& statistics) {
    const Tensor mean = statistics.mean.contiguous(),
                 covariance = statistics.covariance.contiguous();
    core::write_npz(path, {bytes_of("mu", mean), bytes_of("sigma", covariance)});
}

}  // namespace atelier::metrics
