#![allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::disallowed_methods)]
use tidings_core::{event::{Draft,Defaults,EventType,AggregateId,Channel}, time::Timestamp, tenant::TenantName};
use tidings_log::{store::*, sqlite::*, *};
fn main(){
    let n: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let s = SqliteStore::open(dir.path(), Synchronous::Full).unwrap();
    let t0=std::time::Instant::now();
    rt.block_on(async {
        let now=Timestamp::from_millis(1_700_000_000_000);
        let w = s.commit(now, vec![Write::Tenant(TenantName::parse("a").unwrap())]).await.unwrap();
        let Written::Tenant(t)=w[0] else {panic!()};
        let data = bytes::Bytes::from(format!("{{\"x\":\"{}\"}}", "y".repeat(250)));
        let mut i=0u64;
        let mut q = std::collections::VecDeque::new();
        while (i as usize) < n {
            let evs=(0..500).map(|_|{ i+=1; let mut r=[0u8;26]; r[..8].copy_from_slice(&i.to_be_bytes()); r[10..18].copy_from_slice(&i.to_be_bytes());
                Prepared::new(t, Draft{id:None,event_type:EventType::parse("order.created").unwrap(),version:None,timestamp:None,source:Some("/orders".into()),aggregate:Some(AggregateId::parse(&format!("order_{}",i%100000)).unwrap()),channels:vec![Channel::parse("user:1").unwrap()],metadata:vec![],data:data.clone(),expected_sequence:None}.encode(&Defaults{now,source:"/x",random:r}))}).collect();
            q.push_back(s.commit(now, vec![Write::Append(Append{tenant:t,events:evs,request:None})]));
            if q.len()>8 { q.pop_front().unwrap().await.unwrap(); }
        }
        for f in q { f.await.unwrap(); }
    });
    println!("append {n} in {:?}", t0.elapsed());
    std::thread::sleep(std::time::Duration::from_secs(3));
    let t0=std::time::Instant::now();
    let r = verify::verify(dir.path(), &mut |_|{}).unwrap();
    let d=t0.elapsed();
    println!("verify live {:?} {}/s {:?} {:?}", d, n as f64/d.as_secs_f64(), r.tenants, &r.findings[..r.findings.len().min(5)]);
    drop(s);
    println!("{:?}", std::fs::read_dir(dir.path()).unwrap().map(|e|{let e=e.unwrap();(e.file_name(), e.metadata().unwrap().len())}).collect::<Vec<_>>());
    let t0=std::time::Instant::now();
    let r = verify::verify(dir.path(), &mut |_|{}).unwrap();
    let d=t0.elapsed();
    println!("verify closed {:?} {}/s {}", d, n as f64/d.as_secs_f64(), r.is_whole());
}
