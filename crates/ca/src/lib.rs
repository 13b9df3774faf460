//! Certificate authority: SVID issue and rotation, and the SPIFFE Workload API
