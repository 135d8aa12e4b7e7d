//! KEDA's external scaler: the real program, asked by a client that is generated from the same `.proto`.

mod client;
mod examples;
mod generated;
mod instances;
mod methods;
mod outage;
mod streams;
mod tls;
