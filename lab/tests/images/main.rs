//! Images as promises: what is loaded is what was saved, what is damaged or hostile is refused in one line, and both
//! walls get the same tree.

mod disk;
mod embedded;
mod fixture;
mod load;
mod store;
mod unpack;
