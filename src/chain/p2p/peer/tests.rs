//! Peers against each other, and against puppets that say what no peer of ours would, in virtual time.

mod greetings;
mod hostile;
mod limits;
mod rig;
mod talk;
