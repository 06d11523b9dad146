# LibTorch and OpenVINO are Python packages, located by the interpreter unless ATELIER_LIBTORCH and
# OpenVINO_DIR are set.
if(NOT Python_EXECUTABLE AND EXISTS ${PROJECT_SOURCE_DIR}/.venv/bin/python)
  set(Python_EXECUTABLE ${PROJECT_SOURCE_DIR}/.venv/bin/python)
endif()
find_package(Python 3.9 REQUIRED COMPONENTS Interpreter)

function(python_package_folder package result)
  execute_process(COMMAND ${Python_EXECUTABLE} -c "import importlib.util as u; s = u.find_spec('${package}'); print(s.submodule_search_locations[0] if s else '')"
                  OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(${result} "${folder}" PARENT_SCOPE)
endfunction()

python_package_folder(openvino openvino_folder)
if(openvino_folder)
  list(APPEND CMAKE_PREFIX_PATH ${openvino_folder}/cmake)
endif()
