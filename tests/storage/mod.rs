//! The storage on sled against what only a second process can do to it: kill it, cut the power, keep it locked.

mod kill;
mod load;
mod lock;
mod power_cut;
