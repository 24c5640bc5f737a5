# For builds against the ros-* wheels of PyPI (CMAKE_PROJECT_INCLUDE). Both mends need the finished
# targets, so they are deferred to the end of configuring.

# The wheels' exported targets name include folders of the machine they were built on
# (/opt/python/...), and CMake stops at a target with an include folder that does not exist.
function(_ifailsense_drop_missing_include_dirs)
  get_property(imported DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS imported)
    foreach(property INTERFACE_INCLUDE_DIRECTORIES INTERFACE_SYSTEM_INCLUDE_DIRECTORIES)
      get_target_property(folders ${target} ${property})
      if(NOT folders)
        continue()
      endif()
      set(present "")
      foreach(folder IN LISTS folders)
        # Relative folders and generator expressions cannot be checked here: keep them.
        if(NOT IS_ABSOLUTE "${folder}" OR EXISTS "${folder}")
          list(APPEND present "${folder}")
        endif()
      endforeach()
      set_property(TARGET ${target} PROPERTY ${property} "${present}")
    endforeach()
  endforeach()
endfunction()

# With the environment inside the checkout (.venv), NumPy's headers lie "in the source folder", which
# CMake refuses in an exported target. Nobody who uses our targets needs NumPy's headers from them.
function(_ifailsense_keep_source_dirs_private)
  get_property(targets DIRECTORY PROPERTY BUILDSYSTEM_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT folders)
      continue()
    endif()
    set(kept "")
    foreach(folder IN LISTS folders)
      string(FIND "${folder}" "${CMAKE_CURRENT_SOURCE_DIR}/" position)
      if(position EQUAL 0)
        set(folder "$<BUILD_INTERFACE:${folder}>")
      endif()
      list(APPEND kept "${folder}")
    endforeach()
    set_property(TARGET ${target} PROPERTY INTERFACE_INCLUDE_DIRECTORIES "${kept}")
  endforeach()
endfunction()

cmake_language(DEFER CALL _ifailsense_drop_missing_include_dirs)
cmake_language(DEFER CALL _ifailsense_keep_source_dirs_private)
