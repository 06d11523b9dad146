#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "atelier/models/diffusers_directory.h"
#include "atelier/models/ensemble.h"

/// Export of models to other runtimes, as graphs of standard operators that contain the weights
/// (ops/onnx_ops.h). All functions throw core::Error when the output exists already.
namespace atelier::inference {

/// ONNX, or OpenVINO's own files (.xml and .bin), which OpenVINO converts from the ONNX graph.
enum class GraphFormat { onnx, openvino };

/// Parses "onnx" or "openvino".
std::optional<GraphFormat> graph_format(const std::string& name);

/// Writes a model directory as one graph. For a student it is the whole one-step generator: "noise"
/// [batch,...], standard normal -> "sample", in model space (images in [-1, 1]). For other models
/// it is the network: "x" (c_in x_t) and "c_noise" [batch] -> "raw". Conditional models also have
/// the input "class" [batch], int64, or, when they were trained with prompts, "text", the output of
/// the prompt encoder. The file's metadata contain config.json and the weights' hash. Throws
/// core::UsageError unless `file` ends in .onnx or .xml, as `form` requires.
void export_model(const std::filesystem::path& directory, const std::filesystem::path& file,
                  GraphFormat format);

/// Writes a directory with one graph per student, student-0.onnx and so on, and ensemble.json,
/// whose partition assigns requests to students.
void export_ensemble(const models::Ensemble& ensemble, const std::filesystem::path& directory,
                     GraphFormat format);

/// Writes a directory in the layout of diffusers' OnnxStableDiffusionPipeline: text_encoder, unet,
/// vae_decoder and vae_encoder with one graph each, and tokenizer and scheduler. The graphs have
/// the model's own image size.
void export_diffusers(const models::DiffusersDirectory& from,
                      const std::filesystem::path& directory, GraphFormat format);

}  // namespace atelier::inference
