# For CMAKE_TOOLCHAIN_FILE: Bitcoin Core without debug information and hardly optimized. A judge of some hundred blocks
# is quick enough so, and is built in nearly half the time.
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O1" CACHE STRING "")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1" CACHE STRING "")
