# LibTorch from the torch wheel: headers, libtorch_cpu and libc10. The wheel's own CMake package is
# not used, since that of the CUDA build requires a CUDA toolkit with nvcc. Nothing else is linked,
# so that a binary built with one build of the wheel runs with the other; the CUDA library is loaded
# when a GPU is requested (inference/device.cpp).
set(ATELIER_LIBTORCH "" CACHE PATH "LibTorch's folder, with include/ and lib/; empty: that of the torch Python package")
set(libtorch_version 2.13.0)
set(libtorch ${ATELIER_LIBTORCH})
if(NOT libtorch)
  python_package_folder(torch libtorch)
endif()
if(NOT EXISTS ${libtorch}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "LibTorch is not found: ${Python_EXECUTABLE} has no package torch. scripts/setup.sh installs it into .venv; or name a Python that has it "
                      "with -DPython_EXECUTABLE=..., or LibTorch's folder with -DATELIER_LIBTORCH=...")
endif()
# The version is read from the headers: other versions have other ABIs.
file(STRINGS ${libtorch}/include/torch/headeronly/version.h found_version REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
list(TRANSFORM found_version REPLACE ".* ([0-9]+).*" "\\1")
list(JOIN found_version "." found_version)
if(NOT found_version STREQUAL libtorch_version)
  message(FATAL_ERROR "LibTorch ${found_version} lies in ${libtorch}; ${libtorch_version} is needed: pip install torch==${libtorch_version}")
endif()
message(STATUS "LibTorch ${found_version}: ${libtorch}")

foreach(library c10 torch_cpu)
  add_library(atelier_lib${library} SHARED IMPORTED)
  set_target_properties(atelier_lib${library} PROPERTIES IMPORTED_LOCATION ${libtorch}/lib/lib${library}.so)
endforeach()

# The part of LibTorch that the torch modules use. The definitions are those that it was built with.
add_library(atelier_torch INTERFACE)
target_include_directories(atelier_torch SYSTEM INTERFACE ${libtorch}/include ${libtorch}/include/torch/csrc/api/include)
target_compile_definitions(atelier_torch INTERFACE _GLIBCXX_USE_CXX11_ABI=1 USE_C10D_GLOO USE_DISTRIBUTED USE_RPC USE_TENSORPIPE)
# libtorch_cpu of the CUDA build finds NVIDIA's libraries by its own RPATH, which the linker need
# not resolve.
target_link_libraries(atelier_torch INTERFACE atelier_libtorch_cpu atelier_libc10)
target_link_options(atelier_torch INTERFACE -Wl,--allow-shlib-undefined)
