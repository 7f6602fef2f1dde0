# add_driver_entries(TARGET FOLDER): an object library with every name that a driver exports (see
# emit_entries.py). The library that links it defines those that it has; the rest answer NOT_SUPPORTED.
# SPDX-License-Identifier: Apache-2.0
set(SOFTGPU_DRIVER_DIR ${CMAKE_CURRENT_LIST_DIR})

function(add_driver_entries target folder)
  set(functions ${PROJECT_SOURCE_DIR}/api/cuda/functions)
  file(GLOB annotations CONFIGURE_DEPENDS ${functions}/*.toml)
  set(written ${folder}/entries_fallback.cpp ${folder}/entries_per_thread.cpp ${folder}/entries_table.cpp)
  add_custom_command(
    OUTPUT ${written}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${folder}
    COMMAND ${CMAKE_CXX_COMPILER} -E -P -D__CUDA_API_VERSION_INTERNAL -x c++ ${CUDA_INCLUDE_DIR}/cuda.h
            -o ${folder}/cuda.i
    COMMAND Python3::Interpreter ${SOFTGPU_DRIVER_DIR}/emit_entries.py
            --names ${SOFTGPU_DRIVER_DIR}/names.txt --preprocessed ${folder}/cuda.i
            --include ${CUDA_INCLUDE_DIR} --functions ${functions} --output ${folder}
    COMMAND ${CMAKE_COMMAND} -E touch ${written}
    DEPENDS ${SOFTGPU_DRIVER_DIR}/emit_entries.py ${SOFTGPU_DRIVER_DIR}/names.txt ${CUDA_INCLUDE_DIR}/cuda.h ${annotations}
    COMMENT "Writing the driver's entry points"
    VERBATIM)
  add_library(${target} OBJECT ${written})
  target_include_directories(${target} PRIVATE ${SOFTGPU_DRIVER_DIR} ${CUDA_INCLUDE_DIR})
endfunction()
