# At installation: copies shared libraries and, recursively, their dependencies into a folder.
#   from       programs and libraries whose dependencies are copied
#   also       libraries that are copied themselves, e.g. those that are opened by name
#   only       regular expression of the file names to copy; empty: all but the C library's
#   into       the folder
function(install_libraries into from also only)
  set(libc "^(ld-linux.*|lib(c|m|dl|rt|util|pthread|resolv|nsl|anl)\\.so.*)$")
  file(GET_RUNTIME_DEPENDENCIES LIBRARIES ${from} ${also} RESOLVED_DEPENDENCIES_VAR found UNRESOLVED_DEPENDENCIES_VAR lost
       CONFLICTING_DEPENDENCIES_PREFIX twice PRE_EXCLUDE_REGEXES ${libc})
  # A library found in two places: the program uses the first.
  foreach(name ${twice_FILENAMES})
    list(GET twice_${name} 0 first)
    list(APPEND found ${first})
  endforeach()
  if(lost)
    message(FATAL_ERROR "these libraries are not found: ${lost}")
  endif()
  foreach(library ${found} ${also})
    get_filename_component(name ${library} NAME)
    if(NOT only OR name MATCHES "${only}")
      file(INSTALL DESTINATION ${into} TYPE SHARED_LIBRARY FOLLOW_SYMLINK_CHAIN FILES ${library})
    endif()
  endforeach()
endfunction()
