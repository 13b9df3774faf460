//! Master key, seal and unseal, key hierarchy, AEAD, signing keys
