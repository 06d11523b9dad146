# libatelier_nccl.so: sums of ranks' gradients over NCCL, opened at run time beside the program
# (parallel/nccl_module.h). It is built where NVIDIA's headers are: those of LibTorch's wheels, which
# `make build CUDA=1` installs. Nothing of NVIDIA's is linked: LibTorch's CUDA library, loaded before,
# has all names.
get_target_property(sources atelier_parallel SOURCES)
list(FILTER sources EXCLUDE REGEX "/nccl_group.cpp$")
set_target_properties(atelier_parallel PROPERTIES SOURCES "${sources}")

get_filename_component(site_packages ${libtorch} DIRECTORY)
file(GLOB nvidia_includes ${site_packages}/nvidia/*/include)
find_path(ATELIER_NCCL_INCLUDE nccl.h PATHS ${nvidia_includes} NO_CACHE)
find_path(ATELIER_CUDA_CRT_INCLUDE crt/host_config.h PATHS ${nvidia_includes} NO_CACHE)
find_path(ATELIER_CUDA_CCCL_INCLUDE nv/target PATHS ${nvidia_includes} NO_CACHE)
if(ATELIER_NCCL_INCLUDE AND ATELIER_CUDA_CRT_INCLUDE AND ATELIER_CUDA_CCCL_INCLUDE AND EXISTS ${libtorch}/lib/libtorch_cuda.so)
  add_library(atelier_nccl MODULE src/atelier/parallel/nccl_group.cpp)
  target_include_directories(atelier_nccl PRIVATE src)
  target_include_directories(atelier_nccl SYSTEM PRIVATE ${nvidia_includes})
  target_compile_definitions(atelier_nccl PRIVATE USE_C10D_NCCL)
  target_link_libraries(atelier_nccl PRIVATE atelier_torch)
  set_target_properties(atelier_nccl PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}
                        BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN")
endif()
