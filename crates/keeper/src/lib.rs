//! The signing oracle process: holds keys, signs what policy allows
