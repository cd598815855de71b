//! Engines that speak to each other in memory.
