//! Real servers for tests: started on free ports in temporary folders, gone with the test that started them.

mod keeper;
pub mod mariadb;
pub mod postgres;
pub mod redis;

pub use mariadb::MariaDb;
pub use postgres::Postgres;
pub use redis::Redis;
