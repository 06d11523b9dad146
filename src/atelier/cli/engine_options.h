#pragma once

#include <CLI/CLI.hpp>

#include "atelier/core/error.h"
#include "atelier/inference/engine.h"

namespace atelier::cli {

/// The --engine, --precision and --device options of commands that run a model.
struct EngineOptions {
    std::string engine = "auto", precision = "auto", device = "cpu";

    void add_to(CLI::App& command) {
        command
            .add_option("--engine", engine,
                        "who computes; native: atelier's own loops in fp32; auto: on CPUs native "
                        "for small networks in fp32, else OpenVINO, LibTorch on GPUs")
            ->type_name("{auto,native,openvino,torch}");
        command
            .add_option(
                "--precision", precision,
                "of matrix products and convolutions; auto: int8 for quantised models, else fp32")
            ->type_name("{auto,fp32,bf16,int8}");
        command.add_option("--device", device, "cpu, cuda or cuda:N")
            ->check(CLI::Validator(device_error, ""));
    }

    /// CLI11 validator of --device: empty if the device exists and is available, else an error
    /// message.
    static std::string device_error(const std::string& device) {
        try {
            inference::device_of(device);
            return "";
        } catch (const core::UsageError& error) {
            return error.what();
        }
    }

    /// The selected engine. Throws core::UsageError on an invalid combination.
    inference::Engine chosen() const { return inference::engine_of(engine, precision, device); }
};

}  // namespace atelier::cli
