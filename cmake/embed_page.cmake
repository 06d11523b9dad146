# Generates page_files.cpp: the files of web/, embedded for server/page.h.
file(GLOB page_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/web/*)
set(arrays "")
set(entries "")
foreach(source ${page_sources})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
  get_filename_component(name ${source} NAME)
  string(MAKE_C_IDENTIFIER ${name} identifier)
  get_filename_component(ending ${source} LAST_EXT)
  if(ending STREQUAL ".html")
    set(type "text/html; charset=utf-8")
  elseif(ending STREQUAL ".css")
    set(type "text/css; charset=utf-8")
  elseif(ending STREQUAL ".js")
    set(type "text/javascript; charset=utf-8")
  elseif(ending STREQUAL ".svg")
    set(type "image/svg+xml")
  else()
    message(FATAL_ERROR "${source}: no content type is known for this ending; add it to cmake/embed_page.cmake")
  endif()
  set(path "/${name}")
  if(name STREQUAL "index.html")
    set(path "/")
  endif()
  file(READ ${source} bytes HEX)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
  file(SHA256 ${source} hash)
  string(APPEND arrays "constexpr unsigned char ${identifier}[] = {${bytes}};\n")
  string(APPEND entries "    {\"${path}\", \"${type}\", bytes_of(${identifier}), \"${hash}\"},\n")
endforeach()
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/page_files.cpp CONTENT [[#include "atelier/server/page.h"

namespace atelier::server {

namespace {

@arrays@
template <std::size_t size>
std::string_view bytes_of(const unsigned char (&file)[size]) {
    return {reinterpret_cast<const char*>(file), size};
}

const PageFile files[] = {
@entries@};

}  // namespace

std::span<const PageFile> page_files() { return files; }

}  // namespace atelier::server
]] @ONLY)
