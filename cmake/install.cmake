# What is installed, also by containers and packages. Two components: "program" is the program with
# all libraries that it loads except the C library's; "library" is libatelier.so, which loads the
# same ones, with its header and its packages for CMake and pkg-config. The tree may be moved.
#
# What is installed is linked separately with its final RPATH: CMake would leave an empty entry, the
# working directory, in the RPATH of what it changes at installation. RPATH rather than RUNPATH,
# since it also applies to the dependencies of libraries.
set(rpath_option $<$<NOT:$<BOOL:${SKBUILD}>>:-Wl,--disable-new-dtags>)
add_executable(atelier_installed apps/atelier.cpp)
target_link_libraries(atelier_installed PRIVATE atelier::cli)
set_target_properties(atelier_installed PROPERTIES OUTPUT_NAME atelier RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/installed
                      BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN/../lib")
target_link_options(atelier_installed PRIVATE ${rpath_option})
install(TARGETS atelier_installed RUNTIME DESTINATION bin COMPONENT program)
if(cuda_modules AND NOT SKBUILD)
  install(TARGETS ${cuda_modules} LIBRARY DESTINATION lib COMPONENT program)
endif()
install(FILES LICENSE NOTICE THIRD_PARTY.md DESTINATION share/doc/atelier COMPONENT program)
get_target_property(openvino_library openvino::runtime LOCATION)
get_filename_component(openvino_libraries ${openvino_library} DIRECTORY)
install(CODE "include(${PROJECT_SOURCE_DIR}/cmake/install_libraries.cmake)
  install_libraries(\${CMAKE_INSTALL_PREFIX}/lib $<TARGET_FILE:atelier> ${openvino_libraries}/libopenvino_intel_cpu_plugin.so \"\")" COMPONENT program)

# Not part of a wheel.
if(SKBUILD)
  return()
endif()
# Models by the names that the documentation has: `atelier sample models/fashion-mnist/k4` finds them
# from any folder (models::located).
install(DIRECTORY models prompt-models DESTINATION share/atelier COMPONENT program PATTERN logs EXCLUDE)
atelier_shared_library(atelier_library_installed)
set_target_properties(atelier_library_installed PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/installed
                      BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN")
target_link_options(atelier_library_installed PRIVATE ${rpath_option})
install(TARGETS atelier_library_installed EXPORT atelier LIBRARY DESTINATION lib COMPONENT library)
install(FILES include/atelier/atelier.h DESTINATION include/atelier COMPONENT library)
install(EXPORT atelier FILE atelierTargets.cmake NAMESPACE atelier:: DESTINATION lib/cmake/atelier COMPONENT library)
include(CMakePackageConfigHelpers)
configure_package_config_file(cmake/atelierConfig.cmake.in ${PROJECT_BINARY_DIR}/atelierConfig.cmake
                              INSTALL_DESTINATION lib/cmake/atelier)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/atelierConfigVersion.cmake COMPATIBILITY SameMinorVersion)
configure_file(cmake/atelier.pc.in ${PROJECT_BINARY_DIR}/atelier.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/atelierConfig.cmake ${PROJECT_BINARY_DIR}/atelierConfigVersion.cmake
        DESTINATION lib/cmake/atelier COMPONENT library)
install(FILES ${PROJECT_BINARY_DIR}/atelier.pc DESTINATION lib/pkgconfig COMPONENT library)

# cpack -G DEB (make deb): a package with everything that it loads, for Debian 12 and its relatives.
# It lives under /opt, since it brings its own libraries; /usr/bin/atelier leads to it.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME atelier)
set(CPACK_PACKAGE_VENDOR "the Atelier authors")
set(CPACK_PACKAGE_CONTACT "the Atelier authors <atelier@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "one-step image students distilled from a diffusion teacher")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION "Atelier distils a conditional diffusion model into one-step students and
samples, measures and serves them. The program, its C++ library, and the
libraries that they load.")
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_BINARY_DIR})
set(CPACK_PACKAGING_INSTALL_PREFIX /opt/atelier)
set(CPACK_STRIP_FILES ON)
set(CPACK_THREADS 0)
set(CPACK_DEB_COMPONENT_INSTALL OFF)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMPRESSION_TYPE zstd)  # LibTorch alone is 0.4 GB; xz takes minutes
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "libc6 (>= 2.36)")
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${PROJECT_SOURCE_DIR}/deploy/debian/postinst ${PROJECT_SOURCE_DIR}/deploy/debian/prerm)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
include(CPack)
