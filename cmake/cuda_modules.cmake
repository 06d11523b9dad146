# Modules that are opened at run time beside the program, on machines with a GPU:
#   libatelier_nccl.so        sums of ranks' gradients over NCCL (parallel/nccl_module.h)
#   libatelier_cuda_graph.so  recorded work of a device (backends/torch/recorded_work.h)
# They are built where NVIDIA's headers are: those of LibTorch's wheels, which `make build CUDA=1`
# installs. Nothing of NVIDIA's is linked: LibTorch's CUDA library, loaded before, has all names.
get_filename_component(site_packages ${libtorch} DIRECTORY)
file(GLOB nvidia_includes ${site_packages}/nvidia/*/include)
find_path(ATELIER_NCCL_INCLUDE nccl.h PATHS ${nvidia_includes} NO_CACHE)
find_path(ATELIER_CUDA_CRT_INCLUDE crt/host_config.h PATHS ${nvidia_includes} NO_CACHE)
find_path(ATELIER_CUDA_CCCL_INCLUDE nv/target PATHS ${nvidia_includes} NO_CACHE)
set(cuda_modules "")

# The source belongs to a module of the program by its folder, but not to its library.
function(cuda_module name module source)
  get_target_property(sources atelier_${module} SOURCES)
  list(FILTER sources EXCLUDE REGEX "/${source}$")
  set_target_properties(atelier_${module} PROPERTIES SOURCES "${sources}")
  if(NOT (ATELIER_NCCL_INCLUDE AND ATELIER_CUDA_CRT_INCLUDE AND ATELIER_CUDA_CCCL_INCLUDE AND EXISTS ${libtorch}/lib/libtorch_cuda.so))
    return()
  endif()
  add_library(${name} MODULE src/atelier/${module}/${source})
  target_include_directories(${name} PRIVATE src)
  target_include_directories(${name} SYSTEM PRIVATE ${nvidia_includes})
  target_compile_definitions(${name} PRIVATE USE_C10D_NCCL)
  target_link_libraries(${name} PRIVATE atelier_torch)
  set_target_properties(${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}
                        BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN")
  set(cuda_modules ${cuda_modules} ${name} PARENT_SCOPE)
endfunction()

cuda_module(atelier_nccl parallel nccl_group.cpp)
cuda_module(atelier_cuda_graph backends torch/cuda_graph.cpp)
