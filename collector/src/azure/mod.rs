//! Azure, over the REST API of Azure Resource Manager (ARM).
//!
//! [`az_cloud`] is the plugin: which units there are and what becomes of them. It reads through `arm`, which calls ARM
//! and says what its refusals mean, with the tokens of `sign_in`. `list` is what a page of a list is, `resource` the
//! table of resource types, with the makers of their records in `subscription` and `nsg`.

mod arm;
pub mod az_cloud;
mod list;
mod nsg;
mod params;
mod resource;
mod sign_in;
mod subscription;
