//! `blocktorrent lab`: real programs over the links of a scenario.
//!
//! ```text
//!   network namespace            router (a thread of this program)           network namespace
//!  ┌──────────────────┐   ┌─────────────────────────────────────────────┐   ┌──────────────────┐
//!  │ node process     │   │ switch: uplink ─▶ link ─▶ held ─▶ downlink  │   │ node process     │
//!  │ kernel's UDP, TCP│──▶│ TUN          the simulator's Link       TUN │──▶│ kernel's UDP, TCP│
//!  └──────────────────┘   └─────────────────────────────────────────────┘   └──────────────────┘
//! ```
//!
//! One scenario, two clocks: the simulator runs the same trial, and the report has both. Programs, kernels and clocks are
//! real here; only what lies between the machines is not.
//!
//! - `feasible`: what of a scenario it can do; `ground`: blocks as nodes take them; `switch`: the links, pure
//! - `place`: a namespace; `router`: the thread that moves packets; `net`: both together
//! - `nodes`: the processes; `flow`: a TCP connection beside them; `run`: one run; `report`: both worlds side by side
//! - `bitcoinds`: bitcoind over the same links; `speed`: what the links carry here; `broom`: a folder that goes
//!
//! Whatever way it ends, nothing is left: a namespace has no name and lives by its programs. Each of these is the first of a
//! PID namespace, so that all that it starts ends with it, and it is killed with the lab's threads. A process of its own
//! removes the folder. What could stay is a program whose lab is killed in the microseconds between its `fork` and its asking
//! to be killed along; a node ends even then, for its stdin is closed.

#[cfg(target_os = "linux")]
mod bitcoinds;
#[cfg(target_os = "linux")]
mod broom;
#[cfg(target_os = "linux")]
mod command;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod feasible;
#[cfg(target_os = "linux")]
mod flow;
#[cfg(target_os = "linux")]
mod ground;
#[cfg(target_os = "linux")]
mod net;
#[cfg(target_os = "linux")]
mod nodes;
#[cfg(target_os = "linux")]
mod place;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod router;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod speed;
#[cfg(target_os = "linux")]
mod switch;

#[cfg(target_os = "linux")]
pub use command::lab;
#[cfg(not(target_os = "linux"))]
pub use elsewhere::lab;
