use super::super::hub::Hash;
use super::super::stop::Stop;
use super::*;
