#include "atelier/diffusion/device_normals.h"

#include <array>
#include <bit>
#include <numbers>

#include "atelier/backends/torch/gpu_kernels.h"
#include "atelier/backends/torch/transfer.h"
#include "atelier/core/error.h"
#include "atelier/core/normal_numbers.h"

namespace atelier::diffusion {

namespace {

constexpr std::int64_t word = 0xffffffff;
constexpr int rounds = core::Philox::rounds;

/// [2,1,1] int64: a value for each row of a pair.
backends::DeviceConstant pair_of(std::int64_t upper, std::int64_t lower) {
    return backends::DeviceConstant(at::tensor({upper, lower}, at::kLong).view({2, 1, 1}));
}

/// What differs between streams: the key of every round, [rounds,2,S,1], then the index, [2,S,1],
/// the lower half first; int64.
Tensor keys_of(std::span<const core::RandomStream> streams) {
    constexpr std::array<std::uint32_t, 2> increments{core::Philox::increment0,
                                                      core::Philox::increment1};
    const auto count = static_cast<std::int64_t>(streams.size());
    const Tensor keys = at::empty({rounds + 1, 2, count, 1}, at::kLong);
    auto values = keys.accessor<std::int64_t, 4>();
    for (std::int64_t s = 0; s < count; ++s) {
        const core::RandomStream& stream = streams[static_cast<std::size_t>(s)];
        std::array<std::uint32_t, 2> key = stream.key();
        for (int round = 0; round < rounds; ++round) {
            for (std::size_t half = 0; half < 2; ++half) {
                values[round][static_cast<std::int64_t>(half)][s][0] = key[half];
                key[half] += increments[half];
            }
        }
        values[rounds][0][s][0] = static_cast<std::int64_t>(stream.index()) & word;
        values[rounds][1][s][0] = static_cast<std::int64_t>(stream.index() >> 32);
    }
    return keys;
}

/// The words of blocks, in the pairs that become normal numbers.
struct Words {
    Tensor first, second;  // [2,S,B] int64
};

/// Philox-4x32-10 of `blocks` counters from `first` on. Of a counter's words, `first` are 0 and 2,
/// `second` 1 and 3.
Words philox(std::span<const core::RandomStream> streams, std::int64_t first, std::int64_t blocks,
             at::Device device) {
    // Those of words 2 and 0: a round multiplies word 0 for the new words 2 and 3.
    static const backends::DeviceConstant multipliers =
        pair_of(core::Philox::multiplier2, core::Philox::multiplier0);
    const Tensor factors = multipliers.on(device),
                 keys = backends::to_device(keys_of(streams), device);
    const auto count = static_cast<std::int64_t>(streams.size());
    const Tensor index = keys[rounds];
    Words words{at::empty({2, count, blocks}, index.options()),
                at::zeros({2, count, blocks}, index.options())};
    words.first[0].copy_(at::arange(first, first + blocks, index.options()));
    words.first[1].copy_(index[0]);
    words.second[1].copy_(index[1]);
    for (int round = 0; round < rounds; ++round) {
        // Products of 64 bits, whose lower words are the next second ones. What lies above a word,
        // there and after the signed shift, goes at the end of a round.
        const Tensor product = words.first.flip(0).mul_(factors);
        words.first = product.bitwise_right_shift(32)
                          .bitwise_xor_(words.second)
                          .bitwise_xor_(keys[round])
                          .bitwise_and_(word);
        words.second = product;
    }
    words.second.bitwise_and_(word);
    return words;
}

/// (word + 1/2) / 2^32, float64.
Tensor uniforms(const Tensor& words) { return words.to(at::kDouble).add_(0.5).mul_(0x1p-32); }

/// As `natural_log` of core/normal_numbers.h.
Tensor natural_log(const Tensor& x) {
    constexpr auto artanh = core::artanh_series();
    constexpr std::int64_t root_half = std::bit_cast<std::int64_t>(std::numbers::sqrt2 / 2);
    constexpr int mantissa_bits = 52;
    const Tensor bits = x.view(at::kLong),
                 exponent = (bits - root_half).bitwise_right_shift_(mantissa_bits);
    const Tensor m = (bits - exponent.bitwise_left_shift(mantissa_bits)).view(at::kDouble);
    const Tensor f = (m - 1).div_(m + 1), squared = f * f;
    Tensor sum = squared * artanh.of[artanh.count - 1];
    sum.add_(artanh.of[artanh.count - 2]);
    for (int i = artanh.count - 2; i > 0; --i) sum.mul_(squared).add_(artanh.of[i - 1]);
    return exponent.to(at::kDouble).mul_(std::numbers::ln2).add_((f * 2).mul_(sum));
}

/// The coefficients of sine's and cosine's series by rising powers of x^2, [9,2,1,1,1].
Tensor sine_and_cosine(at::Device device) {
    constexpr auto sine = core::sine_series(), cosine = core::cosine_series();
    static const backends::DeviceConstant both(
        at::stack({at::tensor(at::ArrayRef<double>(sine.of), at::kDouble),
                   at::tensor(at::ArrayRef<double>(cosine.of), at::kDouble)},
                  1)
            .view({-1, 2, 1, 1, 1}));
    return both.on(device);
}

struct CosSin {
    Tensor cos, sin;
};

/// As `cos_sin_of_turns` of core/normal_numbers.h.
CosSin cos_sin_of_turns(const Tensor& turns) {
    const Tensor turns4 = turns * 4, quarter = (turns4 + 0.5).floor_();
    const Tensor x = (turns4 - quarter).mul_(std::numbers::pi / 2), squared = x * x;
    const std::vector<Tensor> series = sine_and_cosine(turns.device()).unbind();
    Tensor both = squared.unsqueeze(0) * series.back();
    both.add_(series[series.size() - 2]);
    for (std::size_t i = series.size() - 2; i > 0; --i) both.mul_(squared).add_(series[i - 1]);
    const Tensor s = both[0].mul(x), c = both[1], q = quarter.to(at::kLong);
    const Tensor odd = q.bitwise_and(1).to(at::kBool);
    // cos is negative in quarters 1 and 2, sin in 2 and 3: 2 there, else 0.
    const Tensor negative_cos = (q + 1).bitwise_and_(2), negative_sin = q.bitwise_and(2);
    return {at::where(odd, s, c).mul_(1 - negative_cos),
            at::where(odd, c, s).mul_(1 - negative_sin)};
}

}  // namespace

Tensor device_normals(std::span<const core::RandomStream> streams, std::int64_t first,
                      std::int64_t count, at::Device device) {
    at::NoGradGuard no_gradients;
    if (const auto* kernels = backends::gpu_kernels(device))
        return backends::gpu_normals(*kernels, device, streams, first, count);
    const std::int64_t first_block = first / 4, blocks = (first + count + 3) / 4 - first_block;
    if (first_block + blocks > word) core::fail("a stream has no normal number {}", first + count);
    const Words words = philox(streams, first_block, blocks, device);
    const Tensor radius = natural_log(uniforms(words.first)).mul_(-2).sqrt_();
    const CosSin turned = cos_sin_of_turns(uniforms(words.second));
    const auto of_streams = static_cast<std::int64_t>(streams.size());
    // A block's numbers: cos and sin of its first pair, then of its second.
    const Tensor numbers =
        at::empty({of_streams, blocks, 2, 2}, radius.options().dtype(at::kFloat));
    const auto place = [&](std::int64_t which) {
        return numbers.select(3, which).permute({2, 0, 1});
    };
    place(0).copy_(radius * turned.cos);
    place(1).copy_(radius * turned.sin);
    return numbers.view({of_streams, blocks * 4}).narrow(1, first - 4 * first_block, count);
}

}  // namespace atelier::diffusion
