#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "atelier/models/diffusers_directory.h"
#include "atelier/models/ensemble.h"

/// Models for other people's runtimes, as graphs of standard operators with the weights inside (ops/onnx_ops.h). All throw core::Error when what they would write exists.
namespace atelier::inference {

/// ONNX, or OpenVINO's own files (.xml and .bin), which OpenVINO makes of the ONNX graph.
enum class GraphForm { onnx, openvino };

/// "onnx" or "openvino".
std::optional<GraphForm> graph_form(const std::string& name);

/// Writes a model directory as one graph. Of a student, all that it does: "noise" [batch,...], standard normal -> "sample", in model space (images in +-1). Of
/// another model its network: "x" (c_in x_t) and "c_noise" [batch] -> "raw". Conditional ones also read "class" [batch], int64, or, where they were trained with prompts, "text", what
/// the prompt encoder says of them. The file's metadata bear config.json and the weights' hash. Throws core::UsageError unless `file` ends in .onnx, or .xml.
void export_model(const std::filesystem::path& directory, const std::filesystem::path& file, GraphForm form);

/// Writes a directory with a graph for each student, student-0.onnx and so on, and the ensemble.json, whose partition says whose a request is.
void export_ensemble(const models::Ensemble& ensemble, const std::filesystem::path& directory, GraphForm form);

/// Writes a directory laid out as diffusers' OnnxStableDiffusionPipeline reads it: text_encoder, unet, vae_decoder and vae_encoder with a graph each, tokenizer and scheduler
/// beside them. Graphs are of the model's own image size.
void export_diffusers(const models::DiffusersDirectory& from, const std::filesystem::path& directory, GraphForm form);

}  // namespace atelier::inference
