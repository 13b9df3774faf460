//! SPIFFE IDs, trust bundles and SVID verification: the one place a peer becomes verified
