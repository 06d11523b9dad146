# libatelier.so, the C++ library: atelier::atelier in other projects. All modules are in it; what it
# exports is what include/atelier declares, by cmake/atelier.map and --exclude-libs, so that nothing
# of it meets symbols of the same names in its user's program.
function(atelier_shared_library target)
  add_library(${target} SHARED $<TARGET_OBJECTS:atelier_api>)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                              $<INSTALL_INTERFACE:include>)
  target_compile_features(${target} INTERFACE cxx_std_17)
  target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:atelier::api>)
  target_link_options(${target} PRIVATE -Wl,--exclude-libs,ALL -Wl,--no-undefined -Wl,--gc-sections
                      -Wl,--version-script,${PROJECT_SOURCE_DIR}/cmake/atelier.map)
  set_target_properties(${target} PROPERTIES OUTPUT_NAME atelier EXPORT_NAME atelier LINKER_LANGUAGE CXX
                        VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
                        LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/atelier.map)
endfunction()

atelier_shared_library(atelier_library)
add_library(atelier::atelier ALIAS atelier_library)
