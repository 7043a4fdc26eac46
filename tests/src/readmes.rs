//! Examples of the README of each crate, compiled and run as doc tests.

/// README of `trunkline`.
#[doc = include_str!("../../crates/trunkline/README.md")]
pub struct Trunkline;

/// README of `trunkline-admin`.
#[doc = include_str!("../../crates/trunkline-admin/README.md")]
pub struct TrunklineAdmin;

/// README of `trunkline-config`.
#[doc = include_str!("../../crates/trunkline-config/README.md")]
pub struct TrunklineConfig;

/// README of `trunkline-dial`.
#[doc = include_str!("../../crates/trunkline-dial/README.md")]
pub struct TrunklineDial;

/// README of `trunkline-forward`.
#[doc = include_str!("../../crates/trunkline-forward/README.md")]
pub struct TrunklineForward;

/// README of `trunkline-link`.
#[doc = include_str!("../../crates/trunkline-link/README.md")]
pub struct TrunklineLink;

/// README of `trunkline-matcher`.
#[doc = include_str!("../../crates/trunkline-matcher/README.md")]
pub struct TrunklineMatcher;

/// README of `trunkline-mesh`.
#[doc = include_str!("../../crates/trunkline-mesh/README.md")]
pub struct TrunklineMesh;

/// README of `trunkline-process`.
#[doc = include_str!("../../crates/trunkline-process/README.md")]
pub struct TrunklineProcess;

/// README of `trunkline-proxy`.
#[doc = include_str!("../../crates/trunkline-proxy/README.md")]
pub struct TrunklineProxy;

/// README of `trunkline-registrar`.
#[doc = include_str!("../../crates/trunkline-registrar/README.md")]
pub struct TrunklineRegistrar;

/// README of `trunkline-registrar-dns`.
#[doc = include_str!("../../crates/trunkline-registrar-dns/README.md")]
pub struct TrunklineRegistrarDns;

/// README of `trunkline-registrar-etcd`.
#[doc = include_str!("../../crates/trunkline-registrar-etcd/README.md")]
pub struct TrunklineRegistrarEtcd;

/// README of `trunkline-registrar-embedded`.
#[doc = include_str!("../../crates/trunkline-registrar-embedded/README.md")]
pub struct TrunklineRegistrarEmbedded;

/// README of `trunkline-route`.
#[doc = include_str!("../../crates/trunkline-route/README.md")]
pub struct TrunklineRoute;

/// README of `trunkline-stack`.
#[doc = include_str!("../../crates/trunkline-stack/README.md")]
pub struct TrunklineStack;

/// README of `trunkline-term`.
#[doc = include_str!("../../crates/trunkline-term/README.md")]
pub struct TrunklineTerm;

/// README of `trunkline-tls`.
#[doc = include_str!("../../crates/trunkline-tls/README.md")]
pub struct TrunklineTls;

/// README of `trunkline-wire`.
#[doc = include_str!("../../crates/trunkline-wire/README.md")]
pub struct TrunklineWire;
