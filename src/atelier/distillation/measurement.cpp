#include "atelier/distillation/measurement.h"

#include "atelier/core/error.h"

namespace atelier::distillation {

Measurement::Measurement(const Tensor& scalar) {
    if (scalar.is_cpu()) value_ = scalar.item<double>();
    else unread_ = scalar.detach();
}

void Measurement::read(const std::vector<Measurement*>& all) {
    std::vector<Measurement*> waiting;
    std::vector<Tensor> scalars;
    for (Measurement* each : all) {
        if (!each->unread_.defined()) continue;
        waiting.push_back(each);
        scalars.push_back(each->unread_.reshape({}).to(at::kDouble));
    }
    if (waiting.empty()) return;
    const Tensor values = at::stack(scalars).to(at::kCPU);
    for (std::size_t i = 0; i < waiting.size(); ++i) {
        waiting[i]->value_ = values.const_data_ptr<double>()[i];
        waiting[i]->unread_ = Tensor();
    }
}

double Measurement::value() const {
    if (unread_.defined()) core::fail("a measurement is used that was not read");
    return value_;
}

}  // namespace atelier::distillation
