# At installation: copies shared libraries and what they load, in turn, into a folder.
#   from       programs and libraries whose needs are copied
#   also       libraries that are copied themselves, e.g. those that are opened by name
#   only       regular expression of the file names that are wanted; empty: all but the C library's
#   into       the folder
function(install_libraries into from also only)
  set(libc "^(ld-linux.*|lib(c|m|dl|rt|util|pthread|resolv|nsl|anl)\\.so.*)$")
  file(GET_RUNTIME_DEPENDENCIES LIBRARIES ${from} ${also} RESOLVED_DEPENDENCIES_VAR found UNRESOLVED_DEPENDENCIES_VAR lost
       CONFLICTING_DEPENDENCIES_PREFIX twice PRE_EXCLUDE_REGEXES ${libc})
  # The same library in two places: the first is that which the program finds.
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
