//! Proofs of backups of real servers: that what is sound is proven, that what is not is found, and that no scratch server reaches production.

mod damage;
mod fence;
mod kill;
mod source;
mod whole;
