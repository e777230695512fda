package dpu

// fixtureWant is what each fixture has, line by line: checked by hand against the
// files in testdata.
var fixtureWant = map[string]string{
	"bluefield2-host": `
side=host
card NVIDIA (Mellanox)|BlueField-2|BlueField-2 DPU 25GbE Dual-Port SFP56|sn=MT2133X01234|pn=MBF2H332A-AENOT|psid=MT_0000000738|fw=24.43.1014|guid=b8ce:f603:00a1:b2c4|mode=unknown
  0000:3b:00.0 kind=pf rdma=mlx5_0 net=ens1f0np0 mac=b8:ce:f6:a1:b2:c4 esw=legacy numa=0 drv=mlx5_core
  0000:3b:00.1 kind=pf rdma=mlx5_1 net=ens1f1np1 mac=b8:ce:f6:a1:b2:c5 esw=legacy numa=0 drv=mlx5_core
`,
	"bluefield2-soc": `
side=soc
card NVIDIA (Mellanox)|BlueField-2|BlueField SoC|sn=MT2133X01234|pn=unknown|psid=MT_0000000738|fw=24.43.1014|guid=b8ce:f603:00a1:b2c4|mode=dpu
  0000:03:00.0 kind=ecpf rdma=mlx5_0 net=p0 mac=b8:ce:f6:a1:b2:c8 sw=c4b2a10003f6ceb8 drv=mlx5_core
  behind pf0hpf kind=pf pf=0 mac=b8:ce:f6:a1:b2:c4 rep=pf0hpf sw=c4b2a10003f6ceb8
  behind pf0vf0 kind=vf pf=0 n=0 rep=pf0vf0 sw=c4b2a10003f6ceb8
`,
	"bluefield3-host": `
side=host
card NVIDIA (Mellanox)|BlueField-3|BlueField-3 B3220 P-Series FHHL DPU|sn=MT2331XZ0CGM|pn=900-9D3B6-00CV-A_Ax|psid=MT_0000000884|fw=32.43.1014|guid=a088:c203:000c:d452|mode=dpu
  0000:98:00.0 kind=pf rdma=mlx5_0 net=ens3f0np0 mac=a0:88:c2:0c:d4:52 numa=1 drv=mlx5_core
`,
	"bluefield3-soc": `
side=soc
card NVIDIA (Mellanox)|BlueField-3|BlueField-3 B3220 P-Series FHHL DPU|sn=MT2331XZ0CGM|pn=900-9D3B6-00CV-A_Ax|psid=MT_0000000884|fw=32.43.1014|guid=a088:c203:000c:d452|mode=dpu
  0000:03:00.0 kind=ecpf pf=0 rdma=mlx5_0 net=p0 mac=a0:88:c2:0c:d4:58 sw=52d40c0003c288a0 esw=switchdev drv=mlx5_core
  0000:03:00.0/mlx5_core.sf.2 kind=sf ctrl=0 pf=0 n=0 rdma=mlx5_2 net=enp3s0f0s0 mac=02:25:f2:8d:a2:4c rep=en3f0pf0sf0 sw=52d40c0003c288a0 esw=switchdev drv=mlx5_core.sf
  behind pf0hpf kind=pf ctrl=1 pf=0 mac=a0:88:c2:0c:d4:52 rep=pf0hpf sw=52d40c0003c288a0
`,
	"connectx6dx": `
side=host
card NVIDIA (Mellanox)|ConnectX-6 Dx|unknown|sn=unknown|pn=unknown|psid=MT_0000000359|fw=22.35.3502|guid=043f:7203:00aa:0010|mode=nic
  0000:17:00.0 kind=pf pf=0 rdma=mlx5_0 net=ens2f0np0 mac=04:3f:72:aa:00:10 sw=1000aa0003723f04 esw=switchdev numa=0 drv=mlx5_core
  0000:17:00.2 kind=vf ctrl=0 pf=0 n=0 rdma=mlx5_1 net=ens2f0v0 mac=0a:11:22:33:44:00 rep=ens2f0npf0vf0 sw=1000aa0003723f04 esw=switchdev numa=0 drv=mlx5_core
  0000:17:00.3 kind=vf ctrl=0 pf=0 n=1 rep=ens2f0npf0vf1 sw=1000aa0003723f04 esw=switchdev numa=0 drv=vfio-pci
`,
	"connectx7": `
side=host
card NVIDIA (Mellanox)|ConnectX-7|unknown|sn=unknown|pn=unknown|psid=unknown|fw=28.39.1002|guid=946d:ae03:0001:0203|mode=nic
  0000:81:00.0 kind=pf pf=0 rdma=mlx5_0 net=eth0 mac=94:6d:ae:01:02:03 sw=0302010003ae6d94 numa=1 drv=mlx5_core
  0000:81:00.0/mlx5_core.sf.4 kind=sf pf=0 n=88 rdma=mlx5_2 net=enp129s0f0s88 mac=00:00:00:00:88:88 rep=eth1 sw=0302010003ae6d94 numa=1
  0000:81:00.0/mlx5_core.sf.5 kind=sf pf=0 n=89 rep=eth2 sw=0302010003ae6d94 numa=1
`,
	"e2100": `
side=host
card Intel|Intel IPU E2100|unknown|sn=unknown|pn=unknown|psid=unknown|fw=unknown|guid=unknown|mode=unknown
  0000:0b:00.0 kind=unknown net=ens5f0 mac=00:00:00:00:03:14 numa=0 drv=idpf
`,
	"e2100-soc": `
side=soc
card Intel|Intel IPU E2100|unknown|sn=unknown|pn=unknown|psid=unknown|fw=unknown|guid=unknown|mode=unknown
  0000:00:01.0 kind=unknown drv=idpf
`,
	"empty": `
side=host
`,
	"octeon": `
side=host
card Marvell (Cavium)|Marvell Octeon 10|unknown|sn=unknown|pn=unknown|psid=unknown|fw=unknown|guid=unknown|mode=unknown
  0000:c1:00.0 kind=pf net=oct0 mac=00:0f:b7:11:22:33 drv=octeon_ep
`,
	"octeon-soc": `
side=soc
card Marvell (Cavium)|Marvell Octeon 10|unknown|sn=unknown|pn=unknown|psid=unknown|fw=unknown|guid=unknown|mode=unknown
  0002:02:00.0 kind=unknown drv=rvu_nicvf
`,
	"pensando": `
side=host
card AMD (Pensando)|AMD Pensando DSC|unknown|sn=unknown|pn=unknown|psid=unknown|fw=1.117.5-a-45|guid=unknown|mode=unknown
  0000:41:00.0 kind=pf rdma=ionic_0 net=enp65s0 mac=00:ae:cd:00:11:22 numa=0 drv=ionic
`,
	"rxe": `
side=host
loose rxe0 kind=software rdma=rxe0 net=eth0 mac=52:54:00:12:34:56
`,
}
